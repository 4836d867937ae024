"""The name ``composable`` in Joblib: it is known without an import, and passes Joblib's own tests of its backends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from fresh import check_fresh

VERSION = tuple(int(part) for part in joblib.__version__.split(".")[:2])


@pytest.mark.parametrize(
    "call",
    [
        "joblib.Parallel(n_jobs=2, backend='composable')",
        "(joblib.parallel_config('composable', n_jobs=2), joblib.Parallel())[1]",
        "(joblib.parallel_backend('composable', n_jobs=2), joblib.Parallel())[1]",
    ],
    ids=["Parallel", "parallel_config", "parallel_backend"],
)
@pytest.mark.parametrize("select", ["pth", "import before", "import after"])
def test_name_is_known_without_an_import_or_with_one_where_that_is_turned_off(call, select):
    ours = "import composable_threads"
    before, after = (ours if select == "import " + when else "" for when in ("before", "after"))
    code = f"""
{before}
import joblib
{after}
parallel = {call}
print(parallel(joblib.delayed(pow)(i, 2) for i in range(5)), type(parallel._backend).__name__)
"""
    env = {} if select == "pth" else {"COMPOSABLE_AUTOLOAD": "0"}
    assert check_fresh(code, env=env) == "[0, 1, 4, 9, 16] ComposableBackend\n"


@pytest.mark.parametrize(("env", "known"), [({}, True), ({"COMPOSABLE_AUTOLOAD": "0"}, False)])
def test_nothing_is_imported_before_the_name_is_selected(env, known):
    code = "import joblib, sys; print('composable' in joblib.parallel.BACKENDS, 'composable_threads' in sys.modules)"
    assert check_fresh(code, env=env) == f"{known} False\n"


# --- Joblib's own tests


def run_suite(folder: Path, keyword: str, *, replaces: str = "") -> tuple[int, set[str], int]:
    """Run Joblib's tests that fit `keyword`: how many passed, which failed, how many calls were ours."""
    command = [
        sys.executable, "-m", "pytest", "--pyargs", "joblib.test.test_parallel", "-q", "-p", "joblib_by_name",
        "-p", "no:cacheprovider", "-W", "ignore", "-rfE", "--tb=native", f"--rootdir={folder}", "-k", keyword,
        "-o", "faulthandler_timeout=100", "-o", "faulthandler_exit_on_timeout=true",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent / "conformance"), "JOBLIB_PLUGIN_REPLACES": replaces},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    text = done.stdout
    assert done.returncode in (0, 1) and " error" not in text.splitlines()[-1], text[-8000:]
    failed = set(re.findall(r"^FAILED \S*::(\S+)", text, re.MULTILINE))
    if failed - EXPECTED_DIFFERENCES:
        print(text[-8000:])
    calls = int(re.search(r"the arena served (\d+) calls", text)[1])
    return int(re.search(r"(\d+) passed", text)[1]), failed, calls


# Each with the reason why it differs where our backend is the one called "threading".
EXPECTED_DIFFERENCES = {
    f"{name}[{form}]"
    for context in ("parallel_config", "parallel_backend")
    for name, form in (
        # They ask for the class name ThreadingBackend in a message and in a list; the list also has our deeper nesting.
        ("test_backend_hinting_and_constraints_with_custom_backends", context),
        ("test_nested_parallelism_limit", f"{context}-threading"),
        # It takes the callbacks away from a subclass of the threads' backend, then wants a pool's result objects.
        ("test_retrieval_context", f"False-{context}"),
    )
}


def test_joblibs_items_by_name_all_pass(tmp_path):
    # Nothing may differ: these tests of every backend ask for answers, errors, time-outs and nesting.
    passed, failed, calls = run_suite(tmp_path, "composable")
    assert failed == set()
    assert (passed == 78) if VERSION in ((1, 5), (1, 6)) else (passed >= 74)
    assert calls >= 50


def test_joblibs_tests_of_its_threads_pass_with_the_backend_in_their_place(tmp_path):
    # Not those that start processes: they take minutes, and Joblib's multiprocessing ones can hang by themselves.
    keyword = "(threading or hinting or retrieval_context or zero_worker) and not loky and not multiprocessing"
    passed, failed, calls = run_suite(tmp_path, keyword, replaces="threading")
    assert failed == EXPECTED_DIFFERENCES
    assert passed >= 100
    assert calls >= 100
