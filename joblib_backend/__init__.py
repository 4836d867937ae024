"""Joblib backend ``composable``: ``joblib.parallel_config("composable")``, ``Parallel(backend="composable")``."""

try:
    import joblib as _joblib  # noqa: F401
except ImportError as error:
    raise ImportError("Joblib is missing; install it with: pip install 'composable-threads[joblib]'") from error

from _composable_threads_boot import stands_aside as _stands_aside

if _stands_aside("joblib"):
    from joblib._parallel_backends import ThreadingBackend as ComposableBackend

    ActivatedBackend = ComposableBackend
else:
    from .backend import ActivatedBackend, ComposableBackend

__all__ = ["ActivatedBackend", "ComposableBackend"]
