"""Numba's own tests of threading layers pass with the arena as layer; those that are quick enough for every run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from fresh import run_fresh

RUNNER = Path(__file__).parent / "conformance" / "numba_suite.py"
NUM_THREADS = "numba.tests.test_num_threads.TestNumThreads"
BACKEND = "numba.tests.test_parallel_backend.TestParallelBackend"


def run_suite(*names: str, threads: int, layer: str | None = "composable") -> int:
    """Run Numba's tests in a fresh process, in which they launch `layer`; the number that ran and were not skipped."""
    code = f"import runpy; runpy.run_path({str(RUNNER)!r}, run_name='__main__')"
    done = run_fresh(code, args=["-v", *names], env={"NUMBA_NUM_THREADS": str(threads)}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"threading layer: {layer}"
    ran = int(re.search(r"^Ran (\d+) tests?", done.stderr, re.MULTILINE)[1])
    skipped = re.search(r"^OK \(.*skipped=(\d+)", done.stderr, re.MULTILINE)
    return ran - int(skipped[1] if skipped else 0)


def num_threads_tests() -> list[str]:
    # Their names begin with an underscore: Numba runs each in a process of its own, for each layer.
    from numba.tests.test_num_threads import TestNumThreads

    tests = [name for name, _ in inspect.getmembers(TestNumThreads) if name.startswith(("_test_", "test_"))]
    return [f"{NUM_THREADS}.{name}" for name in tests]


@pytest.mark.parametrize(("threads", "expected"), [(1, 2), (2, 13), (4, 14)])
def test_num_threads_tests_pass(threads, expected):
    assert run_suite(*num_threads_tests(), threads=threads) >= expected


def test_chunk_size_reduction_and_ufunc_tests_pass():
    ran = run_suite(
        "numba.tests.test_parfors.TestParforChunksizing",
        "numba.tests.test_parfors.TestParforReductionSetNumThreads",
        "numba.tests.npyufunc.test_parallel_ufunc_issues",
        "numba.tests.npyufunc.test_parallel_low_work",
        "numba.tests.npyufunc.test_parallel_env_variable",
        "numba.tests.doc_examples.test_parallel_chunksize",
        threads=4,
    )
    assert ran >= 20


def test_caching_and_initialization_tests_pass():
    ran = run_suite(
        "numba.tests.test_parfors_caching",
        "numba.tests.test_parallel_backend.TestInitSafetyIssues",
        "numba.tests.test_parallel_backend.TestThreadingLayerSelection",
        threads=4,
    )
    assert ran >= 7


def test_concurrency_tests_pass_in_threads():
    names = [f"{BACKEND}.test_threading_concurrent_{kind}" for kind in ("jit", "vectorize", "guvectorize")]
    assert run_suite(*names, threads=4) == 3


def test_concurrency_tests_pass_in_forked_processes():
    # They compute in the children only.
    names = [f"{BACKEND}.test_multiprocessing_fork_concurrent_{kind}" for kind in ("jit", "vectorize", "guvectorize")]
    assert run_suite(*names, threads=4, layer=None) == 3


def test_tests_that_numba_makes_for_each_layer_are_made_for_ours():
    name = "numba.tests.test_num_threads.TestNumThreadsBackends.test_nested_parallelism_3_composable_4_threads"
    assert run_suite(name, threads=4, layer=None) == 1
