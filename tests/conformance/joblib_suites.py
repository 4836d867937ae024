"""Joblib's suites: every test of its backends by our name, and with our backend as the one called "threading"."""

from __future__ import annotations

import joblib

from conformance.suites import Suite

_PARALLEL = ("test/test_parallel.py",)
_REPLACED = {"JOBLIB_PLUGIN_REPLACES": "threading"}
_KNOWN = tuple(int(part) for part in joblib.__version__.split(".")[:2]) in ((1, 5), (1, 6))

SUITES = (
    # Joblib's tests of its backend "dask", on workers with the arena.
    Suite(
        name="joblib dask", part="full", tests=("test/test_dask.py",), plugin="distributed_plugin", passes=15, uses=50
    ),
    # Nothing may differ: these tests of every backend ask for answers, errors, time-outs and nesting.
    Suite(
        name="joblib by name",
        tests=_PARALLEL,
        plugin="joblib_by_name",
        keyword="composable",
        passes=78 if _KNOWN else 74,
        uses=50,
    ),
    # Without those that start processes: they take minutes.
    Suite(
        name="joblib threading quick",
        part="quick",
        tests=_PARALLEL,
        plugin="joblib_by_name",
        keyword="(threading or hinting or retrieval_context or zero_worker) and not loky and not multiprocessing",
        env=_REPLACED,
        passes=100,
        uses=100,
    ),
    Suite(
        name="joblib threading",
        part="full",
        tests=_PARALLEL,
        plugin="joblib_by_name",
        env=_REPLACED,
        passes=400,
        uses=100,
        seconds=1200,
    ),
    Suite(
        name="joblib threading config",
        part="full",
        tests=("test/test_config.py", "test/test_memmapping.py"),
        plugin="joblib_by_name",
        env=_REPLACED,
        passes=50,
        seconds=900,
    ),
)
