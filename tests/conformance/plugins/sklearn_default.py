"""Makes the backend Joblib's default, for runs of scikit-learn's own tests: ``pytest -p sklearn_default``.

As ``composable_threads.activate()`` does: what names a backend of processes keeps it, and a call without n_jobs stays
sequential, which scikit-learn's tests of metadata routing ask for.
"""

from __future__ import annotations

import joblib.parallel
import record
from composable_threads.joblib_backend import ComposableBackend, hook

if not record.STOCK:
    hook.activate(joblib.parallel)
start_call = ComposableBackend.start_call


def counted(backend):
    record.used()
    start_call(backend)


ComposableBackend.start_call = counted
