"""For runs of Joblib's own tests, ``pytest -p joblib_by_name``: tells how many of their calls the arena served.

With ``JOBLIB_PLUGIN_REPLACES=threading`` in the environment the backend also takes the place of Joblib's threads, class
and name, as ``composable_threads.activate()`` does. To be loaded before the test modules, which make their lists of
backends when they are imported.
"""

from __future__ import annotations

import os

import joblib._parallel_backends
import joblib.parallel
import record
from composable_threads.joblib_backend import ActivatedBackend, ComposableBackend

start_call = ComposableBackend.start_call


def counted(backend):
    record.used()
    start_call(backend)


ComposableBackend.start_call = counted

if os.environ.get("JOBLIB_PLUGIN_REPLACES") == "threading" and not record.STOCK:
    joblib.parallel.BACKENDS["threading"] = ActivatedBackend
    for module in (joblib.parallel, joblib._parallel_backends):
        module.ThreadingBackend = ActivatedBackend
