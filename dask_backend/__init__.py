"""Dask scheduler ``composable``: ``dask.config.set(scheduler="composable")`` or ``scheduler=dask_backend.get``."""

try:
    import dask as _dask  # noqa: F401
except ImportError as error:
    raise ImportError("Dask is missing; install it with: pip install 'composable-threads[dask]'") from error

from _composable_threads_boot import stands_aside as _stands_aside

if _stands_aside("dask"):
    from dask.threaded import get
else:
    from .scheduler import get

__all__ = ["get"]
