"""The one patch of Joblib: the name ``composable`` in its registry of backends.

Joblib has no entry points, and its table of external backends is not asked by ``Parallel(backend=...)``. Read and tested
with Joblib 1.4 to 1.6.

Loaded by file, without the package around it, so nothing of ours may be imported at the top.
"""


def install(parallel):
    """Register with the imported module ``joblib.parallel``. Idempotent."""

    def composable(**options):
        from composable_threads.joblib_backend import ComposableBackend

        return ComposableBackend(**options)

    parallel.BACKENDS.setdefault("composable", composable)


def activate(parallel):
    """Take over Joblib's default backend and its "threading"; a backend of processes that is named stays."""
    from _composable_threads_boot import stands_aside

    parallel._composable_threads_stock = parallel.DEFAULT_BACKEND, parallel.BACKENDS["threading"]
    if stands_aside("joblib"):
        return

    def threading(**options):
        from composable_threads.joblib_backend import ActivatedBackend

        return ActivatedBackend(**options)

    parallel.BACKENDS["threading"] = threading
    parallel.DEFAULT_BACKEND = "threading"


def deactivate(parallel):
    """Give both back."""
    parallel.DEFAULT_BACKEND, parallel.BACKENDS["threading"] = parallel._composable_threads_stock
    del parallel._composable_threads_stock
