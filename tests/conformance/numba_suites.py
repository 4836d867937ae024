"""Numba's suites. Tests whose names begin with an underscore are run by Numba in a process of their own per layer."""

from __future__ import annotations

from conformance.suites import Suite

_TESTS = "numba.tests"
_BACKEND = f"{_TESTS}.test_parallel_backend"
_NUM_THREADS = f"{_TESTS}.test_num_threads.TestNumThreads"
_PARFORS = f"{_TESTS}.test_parfors"
# Classes that are skipped unless told that they have a process of their own, which they have here.
_FOUR = {"NUMBA_NUM_THREADS": "4", "SUBPROC_TEST": "1"}


def _parfors(*classes: str) -> tuple[str, ...]:
    return tuple(f"{_PARFORS}.Test{name}" for name in classes)


SUITES = (
    *(
        Suite(
            name=f"numba num_threads {threads}",
            tests=(f"{_NUM_THREADS}._test_*", f"{_NUM_THREADS}.test_*"),
            env={"NUMBA_NUM_THREADS": str(threads)},
            passes=passes,
        )
        for threads, passes in ((1, 2), (2, 13), (4, 14))
    ),
    Suite(
        name="numba chunks and ufuncs",
        tests=(
            *_parfors("ParforChunksizing", "ParforReductionSetNumThreads"),
            f"{_TESTS}.npyufunc.test_parallel_ufunc_issues",
            f"{_TESTS}.npyufunc.test_parallel_low_work",
            f"{_TESTS}.npyufunc.test_parallel_env_variable",
            f"{_TESTS}.doc_examples.test_parallel_chunksize",
        ),
        env=_FOUR,
        passes=20,
    ),
    Suite(
        name="numba caching and initialization",
        tests=(
            f"{_TESTS}.test_parfors_caching",
            f"{_BACKEND}.TestInitSafetyIssues",
            f"{_BACKEND}.TestThreadingLayerSelection",
        ),
        env=_FOUR,
        passes=7,
    ),
    Suite(
        name="numba concurrency quick",
        part="quick",
        tests=tuple(
            f"{_BACKEND}.TestParallelBackend.test_{where}_concurrent_{kind}"
            for where in ("threading", "multiprocessing_fork")
            for kind in ("jit", "vectorize", "guvectorize")
        ),
        env=_FOUR,
        passes=6,
    ),
    Suite(
        name="numba layers quick",
        part="quick",
        tests=(f"{_TESTS}.test_num_threads.TestNumThreadsBackends.test_nested_parallelism_3_composable_4_threads",),
        env=_FOUR,
    ),
    # Without those that start ten or twenty processes.
    Suite(
        name="numba forks quick",
        part="quick",
        tests=("numba_forks.TestForkSafetyIssues.test_par_parent_*_fork_*", "numba_forks.TestMiscBackendIssues"),
        env=_FOUR,
        passes=7,
        uses=7,
    ),
    Suite(name="numba forks", part="full", tests=("numba_forks",), env=_FOUR, passes=12, uses=12, seconds=600),
    Suite(
        name="numba backend",
        part="full",
        tests=(f"{_BACKEND}.TestParallelBackend",),
        env=_FOUR,
        passes=25,
        seconds=2400,
    ),
    Suite(
        name="numba layers",
        part="full",
        tests=(f"{_BACKEND}.TestSpecificBackend", f"{_TESTS}.test_num_threads.TestNumThreadsBackends"),
        env=_FOUR,
        passes=51,  # thirteen more are there to see them skipped with one thread
        seconds=3600,
    ),
    Suite(
        name="numba parfors",
        part="full",
        tests=_parfors(
            "ParforBasic", "ParforNumericalMisc", "ParforNumPy", "ParforsUnsupported", "Parfors", "ParforsLeaks",
            "ParforsSlice", "ParforsOptions", "ParforsBitMask", "ParforsMisc", "ParforsDiagnostics", "DiagnosticEnvVar",
        ),
        env=_FOUR,
        passes=180,
        seconds=2400,
    ),
    Suite(
        name="numba pranges",
        part="full",
        tests=_parfors("PrangeBasic", "PrangeSpecific", "ParforsVectorizer"),
        env=_FOUR,
        passes=50,
        seconds=2400,
    ),
    Suite(
        name="numba passes, GIL and threads",
        part="full",
        tests=tuple(f"{_TESTS}.test_{name}" for name in ("parfors_passes", "gil", "threadsafety")),
        env=_FOUR,
        passes=25,
        seconds=900,
    ),
    Suite(
        name="numba stencils",
        part="full",
        tests=(f"{_TESTS}.test_stencils",),
        env=_FOUR,
        passes=50,
        seconds=2400,
    ),
    Suite(
        name="numba gufuncs",
        part="full",
        tests=tuple(f"{_TESTS}.npyufunc.test_{name}" for name in ("gufunc", "vectorize_decor", "caching")),
        env=_FOUR,
        passes=60,
        seconds=900,
    ),
)  # fmt: skip
