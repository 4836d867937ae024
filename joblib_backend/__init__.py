"""Joblib backend ``composable``: ``joblib.parallel_config("composable")``, ``Parallel(backend="composable")``."""

from .backend import ActivatedBackend, ComposableBackend

__all__ = ["ActivatedBackend", "ComposableBackend"]
