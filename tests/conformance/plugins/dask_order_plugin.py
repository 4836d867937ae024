"""Puts the native order in the place of Dask's, for runs of Dask's own tests: ``pytest -p dask_order_plugin``.

To be loaded before any test module, for those import ``dask.order.order`` by name.
"""

from __future__ import annotations

import dask.local
import dask.order
import record
from composable_threads.dask_backend.order import order as native_order


def order(dsk, dependencies=None, *, return_stats=False):
    if not return_stats:
        record.used()
    return native_order(dsk, dependencies, return_stats=return_stats)


if not record.STOCK:
    dask.order.order = dask.local.order = order
