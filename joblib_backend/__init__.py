"""Joblib backend ``composable``: ``joblib.parallel_config("composable")``, ``Parallel(backend="composable")``."""

try:
    import joblib as _joblib  # noqa: F401
except ImportError as error:
    raise ImportError("Joblib is missing; install it with: pip install 'composable-threads[joblib]'") from error

from .backend import ActivatedBackend, ComposableBackend

__all__ = ["ActivatedBackend", "ComposableBackend"]
