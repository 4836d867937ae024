"""Puts the native order in the place of Dask's, for runs of Dask's own tests: ``pytest -p dask_order_plugin``.

To be loaded before any test module, for those import ``dask.order.order`` by name.
"""

from __future__ import annotations

import dask.local
import dask.order
from composable_threads.dask_backend.order import order as native_order

calls = 0


def order(dsk, dependencies=None, *, return_stats=False):
    global calls
    calls += not return_stats
    return native_order(dsk, dependencies, return_stats=return_stats)


dask.order.order = dask.local.order = order


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"the native order was called {calls} times")
