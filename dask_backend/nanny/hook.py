"""The one patch of distributed: a nanny tells its worker which widths it has put into its environment by default.

A nanny starts its worker with OMP_NUM_THREADS=1 and its kin, which leaves cores idle where the worker has several. A 1
of the user's own must go on to count, and looks the same in the worker. So the nanny adds one variable to the worker's
environment (`VARIABLE`), the names whose value is only distributed's default: not in the nanny's own environment
before, nor in the user's configuration, nor in ``Nanny(env=...)``. Only ``dask.config.set`` with the very value of the
default is taken for the default. Read with distributed 2025.1 to 2026.8.

Loaded by file, without the package around it, so nothing of ours may be imported at the top.
"""

from __future__ import annotations

import functools
import inspect
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "COMPOSABLE_NANNY_WIDTHS"
NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PLACE = "distributed.nanny.pre-spawn-environ"

put: dict[
    str, Any
] = {}  # what nannies of this process have put into its own environment, which they do to reach their workers


def install(nanny: Any) -> None:
    """Patch the imported module ``distributed.nanny``. Idempotent."""
    cls = nanny.Nanny
    if hasattr(cls, "_composable_threads_stock"):
        return
    stock = cls._composable_threads_stock = cls.__init__
    signature = inspect.signature(stock)

    @functools.wraps(stock)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        free = [name for name in NAMES if not is_users(name)]
        stock(self, *args, **kwargs)
        given = signature.bind(self, *args, **kwargs).arguments.get("env") or {}
        defaults = [name for name in free if name not in given and is_default(name, self.pre_spawn_env.get(name))]
        put.update((name, self.pre_spawn_env[name]) for name in defaults)
        self.env[VARIABLE] = ",".join(defaults)

    cls.__init__ = __init__


def is_users(name: str) -> bool:
    """Whether the variable is set in this process, and by no nanny: neither one in it nor the one that started it."""
    if name not in os.environ or os.environ[name] == put.get(name):
        return False
    return name not in os.environ.get(VARIABLE, "").split(",")


def is_default(name: str, value: str | None) -> bool:
    """Whether the value is what distributed itself ships, and the user's configuration names none."""
    import dask.config

    shipped = [dask.config.get(_PLACE, {}, config=dict(config)).get(name) for config in dask.config.defaults]
    if value is None or value not in map(str, shipped):
        return False
    users = dask.config.collect()
    places = (_PLACE, "distributed.nanny.environ")
    return not any(name in (dask.config.get(place, None, config=users) or {}) for place in places)


def activate(nanny: Any) -> None:
    """Widths count with and without an activation."""


def deactivate(nanny: Any) -> None:
    """Widths count with and without an activation."""
