"""Dask's suites: tests of schedulers with ours in place of its threads, of collections in place of all local ones."""

from __future__ import annotations

from conformance.suites import Suite

_ALL = {"DASK_PLUGIN_REPLACES": "all"}
_CORE = "threaded local callbacks delayed context cache base order task_spec composite_expr"

SUITES = (
    Suite(
        name="dask core",
        tests=(
            *(f"tests/test_{name}.py" for name in _CORE.split()),
            "diagnostics/tests/test_profiler.py",
            "diagnostics/tests/test_progress.py",
        ),
        plugin="dask_plugin",
        passes=300,
        uses=200,
        seconds=400,
    ),
    Suite(name="dask order", tests=("tests/test_order.py",), plugin="dask_order_plugin", passes=80, uses=100),
    Suite(
        name="dask collections quick",
        part="quick",
        tests=(
            *(f"array/tests/test_{name}.py" for name in ("gufunc", "map_blocks", "linalg")),
            "bag/tests/test_bag.py",
            "dataframe/tests/test_indexing.py",
        ),
        plugin="dask_plugin",
        env=_ALL,
        passes=300,
        uses=1000,
        seconds=400,
    ),
    *(
        Suite(
            name=f"dask collections {folder}",
            part="full",
            tests=(folder,),
            plugin="dask_plugin",
            env=_ALL,
            passes=passes,
            uses=500,
            seconds=5400,
        )
        for folder, passes in (("array", 4000), ("bag", 200), ("dataframe", 5000))
    ),
)
