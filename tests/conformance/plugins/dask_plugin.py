"""Puts the arena's scheduler in the place of Dask's threads, for runs of Dask's own tests: ``pytest -p dask_plugin``.

To be loaded before any test module, for those import ``dask.threaded.get`` by name. With ``DASK_PLUGIN_REPLACES=all``
in the environment it takes the place of the other local schedulers too: Dask's tests of collections name "sync", and
bags go to processes by default.
"""

from __future__ import annotations

import os

import dask
import dask.base
import dask.threaded
import pytest
import record
from composable_threads.dask_backend import get as arena_get
from dask.delayed import Delayed, DelayedLeaf


def get(*args, **kwargs):
    record.used()
    return arena_get(*args, **kwargs)


def replace():
    dask.threaded.get = get
    replaced = ["threads", "threading"]
    if os.environ.get("DASK_PLUGIN_REPLACES") == "all":
        replaced += ["sync", "synchronous", "single-threaded", "processes", "multiprocessing"]
    for name in replaced:
        dask.base.named_schedulers[name] = get
    for collection in (Delayed, DelayedLeaf):  # they keep the function that they found when `dask` was imported
        collection.__dask_scheduler__ = staticmethod(get)


if not record.STOCK:
    replace()


# Dask's own conftest.py, which is not installed, has these options and skips.
def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true")
    parser.addoption("--runarrayexpr", action="store_true")


def pytest_runtest_setup(item):
    for mark in ("slow", "array_expr"):
        if mark in item.keywords and not item.config.getoption("--run" + mark.replace("_", "")):
            pytest.skip(mark)
