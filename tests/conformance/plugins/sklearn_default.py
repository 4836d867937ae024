"""Makes the backend Joblib's default, for runs of scikit-learn's own tests: ``pytest -p sklearn_default``.

As Joblib's own CI does it for its backends. What names another backend, or processes, keeps it.
"""

from __future__ import annotations

import joblib.parallel
import record
from composable_threads.joblib_backend import ComposableBackend

joblib.parallel.register_parallel_backend("composable", ComposableBackend, make_default=not record.STOCK)
start_call = ComposableBackend.start_call


def counted(backend):
    record.used()
    start_call(backend)


ComposableBackend.start_call = counted
