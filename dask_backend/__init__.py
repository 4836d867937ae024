"""Dask scheduler ``composable``: ``dask.config.set(scheduler="composable")`` or ``scheduler=dask_backend.get``.

For clusters of dask.distributed there are `ComposablePlugin`, the module `preload` and `ArenaThreadPoolExecutor`.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

try:
    import dask as _dask  # noqa: F401
except ImportError as error:
    raise ImportError("Dask is missing; install it with: pip install 'composable-threads[dask]'") from error

from _composable_threads_boot import stands_aside as _stands_aside

if _stands_aside("dask"):
    from dask.threaded import get
else:
    from .scheduler import get

if _TYPE_CHECKING:
    from .executor import ArenaThreadPoolExecutor as ArenaThreadPoolExecutor
    from .plugin import ComposablePlugin as ComposablePlugin

__all__ = ["get"]

# These import distributed, which takes a second.
_LAZY = {"ArenaThreadPoolExecutor": "executor", "ComposablePlugin": "plugin"}


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        import distributed  # noqa: F401
    except ImportError as error:
        message = "dask.distributed is missing; install it with: pip install 'composable-threads[distributed]'"
        raise ImportError(message) from error
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value
