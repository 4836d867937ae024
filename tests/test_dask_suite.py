"""Dask's own tests of its schedulers and collections, with the arena's ``get`` in the place of Dask's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import dask
from composable_threads.dask_backend import get
from dask.utils_test import GetFunctionTestMixin


class TestGet(GetFunctionTestMixin):
    """What Dask asks of a foreign get function."""

    get = staticmethod(get)


def run_suite(folder: Path, *files: str, replaces: str = "threads", without: tuple[str, ...] = ()) -> tuple[int, int]:
    """Run these test files of the installed Dask; returns how many passed and how often our get was called."""
    root = Path(dask.__file__).parent
    found = [str(root / file) for file in files if (root / file).exists()]  # not every version of Dask has all
    assert len(found) > len(files) / 2
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "dask_plugin", "-p", "no:cacheprovider", "-W", "ignore", "-rfE",
        "-o", "faulthandler_timeout=120", "-o", "faulthandler_exit_on_timeout=true", "--tb=short", f"--rootdir={folder}",
        *found,
    ]  # fmt: skip
    if without:
        command += ["-k", f"not ({' or '.join(without)})"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent / "conformance"), "DASK_PLUGIN_REPLACES": replaces},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    calls = int(re.search(r"the arena's get was called (\d+) times", done.stdout)[1])
    return passed, calls


CORE = (
    *(f"tests/test_{name}.py" for name in "threaded local callbacks delayed context cache base order task_spec".split()),
    "tests/test_composite_expr.py",
    "diagnostics/tests/test_profiler.py",
    "diagnostics/tests/test_progress.py",
)


def test_core_set_of_dask_passes(tmp_path):
    passed, calls = run_suite(tmp_path, *CORE)
    assert passed > 300 and calls > 200


# Left out, each for a reason that is not the scheduler's.
WITHOUT = (
    "test_temporary_directory",  # gives an executor of processes as pool a lambda, which only Dask's own `processes` can send
    "processes",  # ask for what is replaced here
    "groupby",  # a minute, most of it in files
    "test_norm",  # half a minute of arithmetic
)


def test_collections_of_dask_pass_with_every_local_scheduler_replaced(tmp_path):
    files = [f"array/tests/test_{name}.py" for name in ("gufunc", "map_blocks", "linalg")]
    files += ["bag/tests/test_bag.py", "dataframe/tests/test_indexing.py"]
    passed, calls = run_suite(tmp_path, *files, replaces="all", without=WITHOUT)
    assert passed > 300 and calls > 1000


def test_plugin_replaces_what_dask_computes_with():
    # Without this a renamed attribute of Dask would make the suite test Dask's own threads, and pass.
    code = """
import dask_plugin, dask, dask.array, dask.bag, dask.threaded
for made in (dask.delayed(1), dask.array.ones(1)):
    assert dask.base.get_scheduler(collections=[made]) is dask_plugin.get
assert dask.threaded.get is dask.base.get_scheduler(scheduler="threads") is dask_plugin.get
"""
    folder = str(Path(__file__).parent / "conformance")
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": folder}, timeout=60, check=True)
