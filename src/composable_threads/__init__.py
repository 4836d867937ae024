"""One thread pool for Numba, Joblib, Dask, NumPy and plain executors.

Importing this package loads libtbb and this project's native module and registers the name ``composable`` with the
hosts that are, or will be, imported; it imports none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _libtbb

_libtbb.load()

import _composable_threads_boot  # noqa: E402

from . import _native  # noqa: E402
from ._blocking import blocking, task  # noqa: E402

if TYPE_CHECKING:
    from .activation import Activation, activate
    from .executor import Executor
    from .information import info, reset_peak
    from .limiting import limit
    from .pool import ThreadPool
    from .timeline.recording import Trace, trace

__version__ = "0.1.0"
__all__ = [
    "Activation",
    "Executor",
    "ThreadPool",
    "Trace",
    "activate",
    "blocking",
    "deterministic",
    "info",
    "limit",
    "reset_peak",
    "task",
    "trace",
]

# What needs modules of the standard library that are not cheap is imported when it is asked for.
_LAZY = {
    "Activation": "activation",
    "Executor": "executor",
    "ThreadPool": "pool",
    "Trace": "timeline.recording",
    "activate": "activation",
    "info": "information",
    "limit": "limiting",
    "load_ipython_extension": "magics",
    "reset_peak": "information",
    "trace": "timeline.recording",
    "unload_ipython_extension": "magics",
}

_composable_threads_boot.boot()


def deterministic(on: bool = True) -> None:
    """Make Numba's parallel reductions bitwise equal from run to run, for a given thread count.

    Then a parallel loop has as many divisions as threads, so an unbalanced one is not balanced.
    ``COMPOSABLE_DETERMINISTIC=1`` in the environment does the same from the start.

    >>> import composable_threads
    >>> composable_threads.deterministic(True)
    >>> composable_threads.deterministic("yes")
    Traceback (most recent call last):
        ...
    TypeError: deterministic() takes True or False, not 'yes'
    """
    if not isinstance(on, bool):
        raise TypeError(f"deterministic() takes True or False, not {on!r}")
    _native.numba.set_deterministic(on)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _read_environment() -> None:
    import os

    value = os.environ.get("COMPOSABLE_DETERMINISTIC", "").strip()
    if value not in ("", "0", "1"):
        raise ValueError(f"COMPOSABLE_DETERMINISTIC must be 0 or 1, not {value!r}")
    if value == "1":
        _native.numba.set_deterministic(True)


_read_environment()
