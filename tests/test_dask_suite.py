"""Dask's own tests of its schedulers and collections, with the arena's ``get`` in the place of Dask's."""

from __future__ import annotations

from composable_threads.dask_backend import get
from conformance.check import check, quick
from conformance.dask_suites import SUITES
from conformance.suites import PLUGINS
from dask.utils_test import GetFunctionTestMixin
from fresh import check_fresh


class TestGet(GetFunctionTestMixin):
    """What Dask asks of a foreign get function."""

    get = staticmethod(get)


@quick(SUITES)
def test_dasks_own_tests_pass(suite):
    check(suite)


def test_plugin_replaces_what_dask_computes_with():
    # Without this a renamed attribute of Dask would make the suite test Dask's own threads, and pass.
    code = """
    import dask_plugin, dask, dask.array, dask.bag, dask.threaded
    for made in (dask.delayed(1), dask.array.ones(1)):
        assert dask.base.get_scheduler(collections=[made]) is dask_plugin.get
    assert dask.threaded.get is dask.base.get_scheduler(scheduler="threads") is dask_plugin.get
    """
    check_fresh(code, env={"PYTHONPATH": str(PLUGINS)})
