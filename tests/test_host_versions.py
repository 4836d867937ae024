"""A host older than we fit: one clear warning when ``composable`` is asked of it, and what it does without us.

The versions are pretended, except where the environment really has old ones (``python -m tests.matrix --hosts
unsupported``).
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import _composable_threads_boot as boot
import pytest
from fresh import check_fresh, run_fresh

ROOT = Path(__file__).resolve().parents[1]
PRETENDED = {"numba": "0.59.1", "joblib": "1.3.2", "dask": "2024.12.1"}
USES = {
    "numba": """
import numba
@numba.njit(parallel=True)
def total(n):
    s = 0
    for i in numba.prange(n):
        s += i
    return s
for _ in range(2):
    assert total(1000) == 499500
assert numba.threading_layer() in ("tbb", "omp", "workqueue"), numba.threading_layer()
""",
    "joblib": """
import joblib, threading
names = set()
def task(i):
    names.add(threading.current_thread().name)
    return i * i
for _ in range(2):
    assert joblib.Parallel(n_jobs=2, backend="composable")(joblib.delayed(task)(i) for i in range(5)) == [0, 1, 4, 9, 16]
assert not [name for name in names if "composable" in name] and len(names) > 0, names
from joblib._parallel_backends import ThreadingBackend
from composable_threads.joblib_backend import ComposableBackend
assert ComposableBackend is ThreadingBackend
""",
    "dask": """
import dask, dask.threaded
for _ in range(2):
    assert dask.delayed(sum)([1, 2, dask.delayed(abs)(-3)]).compute(scheduler="composable") == 6
from composable_threads.dask_backend import get
assert get is dask.threaded.get
""",
}
ACTIVATED = {
    "numba": USES["numba"],
    "joblib": """
import joblib.parallel as parallel
from joblib._parallel_backends import ThreadingBackend
assert parallel.DEFAULT_BACKEND == "loky" and parallel.BACKENDS["threading"] is ThreadingBackend
active.deactivate()
assert parallel.DEFAULT_BACKEND == "loky" and parallel.BACKENDS["threading"] is ThreadingBackend
""",
    "dask": "import dask\nassert dask.delayed(abs)(-3).compute() == 3",
}
LAYER = {"NUMBA_THREADING_LAYER": "composable"}


def real(host: str) -> str:
    try:
        return importlib.metadata.version(host)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"no {host}")


def old(host: str) -> tuple[str, str]:
    """The old version in use, and what makes it so: nothing where it is really installed."""
    version = real(host)
    if tuple(map(int, version.split(".")[:2])) < boot.OLDEST[host]:
        return version, ""
    return PRETENDED[host], f"import {host}\n{host}.__version__ = {PRETENDED[host]!r}\n"


def check_one_warning(stderr: str, host: str, version: str) -> None:
    told = [line for line in stderr.splitlines() if "composable_threads needs" in line]
    assert len(told) == 1, stderr
    assert f"RuntimeWarning: composable_threads needs {host} " in told[0]
    assert told[0].endswith(f"; {host} {version} keeps its own threads"), told


@pytest.mark.parametrize("host", USES)
def test_an_old_host_that_is_selected_warns_once_and_stays_as_it_is(host):
    version, pretend = old(host)
    done = run_fresh(pretend + USES[host], env=LAYER if host == "numba" else {})
    assert done.returncode == 0, done.stderr
    check_one_warning(done.stderr, host, version)


@pytest.mark.parametrize("host", USES)
def test_an_old_host_warns_once_under_activate_and_stays_as_it_is(host):
    version, pretend = old(host)
    done = run_fresh(f"{pretend}import composable_threads\nactive = composable_threads.activate()\n{ACTIVATED[host]}")
    assert done.returncode == 0, done.stderr
    check_one_warning(done.stderr, host, version)


@pytest.mark.parametrize("host", USES)
def test_an_old_host_that_is_not_asked_for_us_says_nothing(host):
    _, pretend = old(host)
    code = USES[host].partition("from composable_threads")[0].replace('"composable"', '"threading"')
    if host == "dask":
        code = code.replace("threading", "threads")
    elif host == "joblib":
        code = code.partition("from joblib._parallel")[0].replace('"composable" in name', "False")
    check_fresh(pretend + code)


@pytest.mark.parametrize("host", USES)
def test_info_says_which_host_is_too_old(host):
    version, pretend = old(host)
    module = next(name for name in boot.HOOKS if name.startswith(host))
    code = f"import {module}\n{pretend}import composable_threads\nprint(composable_threads.info()['doors'][{module!r}])"
    assert check_fresh(code) == f"stock: {host} {version} is too old\n"


@pytest.mark.parametrize(
    ("version", "too_old"),
    [
        ("0.59.1", True),
        ("0.60.0", False),
        ("0.60.0rc1", False),
        ("0.7", True),
        ("1", False),
        ("0+unknown", False),
        ("", False),
    ],
)
def test_versions_are_compared_by_number(monkeypatch, version, too_old):
    monkeypatch.setattr(boot, "version_of", lambda host: version)
    assert boot.is_too_old("numba") is too_old


def test_the_project_states_the_same_versions():
    text = (ROOT / "pyproject.toml").read_text()
    for host, oldest in boot.OLDEST.items():
        stated = re.search(rf'"{host}(?:\[[\w,]+\])?>=([\d.]+)"', text)[1]
        assert stated == ".".join(map(str, oldest))
