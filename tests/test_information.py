"""`info()` tells what is there, how it is governed and what is amiss; as a dict, as text and as HTML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import check_fresh

import composable_threads
from composable_threads import information

START = "import composable_threads as ct\n"


def advice(**facts: object) -> str:
    found = dict(
        slots=2, slots_source="affinity", quota=None, variable=None, active=False, numba_layer=None,
        libraries=[], doors={}, tbb={"path": "/a/libtbb.so.12", "others": []},
    ) | facts  # fmt: skip
    return "\n".join(information._advice(found))


def test_it_is_a_dict_that_prints_as_a_page() -> None:
    info = composable_threads.info()
    assert isinstance(info, dict) and json.loads(json.dumps(info)) == info
    text = repr(info)
    assert [line for line in text.splitlines() if not line.startswith(" ")] == ["arena", "hosts", "libraries", "advice"]
    assert str(info["slots"]) in text and info["tbb"]["path"] in text
    assert all(len(line) <= 110 or " " not in line.strip() for line in text.splitlines())
    html = info._repr_html_()
    assert html.startswith("<table") and html.count("<tr>") == html.count("</tr>") > 8


def test_hosts_have_versions_and_places_without_being_imported() -> None:
    code = """
import sys
info = ct.info()
assert "numpy" not in sys.modules and "dask" not in sys.modules
import numpy, dask, joblib, numba, os
for module in (numpy, dask, joblib, numba):
    name = module.__name__
    assert info["hosts"][name] == module.__version__, name
    assert info["host_paths"][name] == os.path.dirname(module.__file__), name
assert ct.info()["host_paths"] == info["host_paths"]
"""
    check_fresh(START + code)


def test_libraries_have_a_version_an_origin_and_how_they_are_governed() -> None:
    pytest.importorskip("scipy")
    code = """
import numpy.linalg, scipy.linalg
rows = [row for row in ct.info()["libraries"] if row["kind"] == "openblas"]
assert sorted(row["origin"] for row in rows) == ["numpy", "scipy"], rows
for row in rows:
    assert row["version"][0].isdigit() and "MAX_THREADS" not in row["version"], row
    assert row["governed"].startswith("one width for the process")
absent = [row for row in ct.info()["libraries"] if row["path"] is None]
assert all(row["governed"] == "not loaded" and row["version"] is None for row in absent)
text = repr(ct.info())
assert all(os.path.basename(row["path"]) in text for row in rows)
"""
    check_fresh(START + "import os\n" + code)


def test_a_quota_that_a_library_does_not_see_is_told_with_what_to_do() -> None:
    row = {"kind": "openblas", "path": "/x/libopenblas.so", "width": 32, "scope": "process"}
    told = advice(quota=1.5, slots_source="quota", libraries=[row])
    assert "libopenblas.so (32 threads): wider than the quota of 1.5 CPUs, which it does not see" in told
    assert "OPENBLAS_NUM_THREADS=2" in told and "activate()" in told
    assert "wider than P = 2" in advice(libraries=[row])
    assert advice(libraries=[row], active=True) == "" == advice(libraries=[row | {"width": 2}])
    assert "OPENBLAS_NUM_THREADS and OMP_NUM_THREADS=2" in advice(libraries=[row, row | {"kind": "openmp"}])


def test_other_things_that_are_amiss_are_told() -> None:
    assert advice() == ""
    assert "COMPOSABLE_NUM_THREADS=8 is more than this process may use (2, by affinity)" in advice(variable=8)
    assert "Numba launched its layer 'omp' before activate()" in advice(active=True, numba_layer="omp")
    assert advice(numba_layer="omp") == "" == advice(active=True, numba_layer="composable")
    assert "dask.base keeps its own threads: stock: dask 2020.1 is too old." in advice(
        doors={"dask.base": "stock: dask 2020.1 is too old"}
    )
    assert "More than one libtbb" in advice(tbb={"path": "/a/libtbb.so.12", "others": ["/b/libtbb.so.12"]})


def test_a_library_wider_than_p_is_found_in_a_real_process() -> None:
    pytest.importorskip("numpy")
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2:
        pytest.skip("a library as wide as P cannot be wider than one CPU")
    code = "import numpy.linalg\ntold = ct.info()['advice']\nassert any('wider than P = 1' in text for text in told), told\n"
    check_fresh(START + code, env={"COMPOSABLE_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "2"})


def test_a_limit_is_told() -> None:
    code = """
from composable_threads import _native
_native.configure(3)
with ct.limit(2):
    assert ct.info()["most"] == 2 and "2 may compute now" in repr(ct.info())
assert ct.info()["most"] == 3 and "may compute now" not in repr(ct.info())
"""
    check_fresh(START + code)


def test_the_command_line_tells_of_libraries_though_nothing_imported_them(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    command = [sys.executable, "-m", "composable_threads", "info", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    origins = {row["origin"] for row in json.loads(done.stdout)["libraries"]}
    assert {"numpy", "scipy"} <= origins and done.stderr == ""
