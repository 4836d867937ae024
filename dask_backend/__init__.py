"""Dask scheduler ``composable``: ``dask.config.set(scheduler="composable")`` or ``scheduler=dask_backend.get``."""

from .scheduler import get

__all__ = ["get"]
