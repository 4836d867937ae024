"""What is done to threadpoolctl: its limiter says when a limit begins and when it ends, and the arena is one of its
libraries.

Inside a task a limit must win for its extent. From OpenBLAS, which has one width per process, it cannot be told: a
limit that equals the share at that moment changes nothing, and is gone when the share changes; and what is put back at
its end may be a share of long ago. All of threadpoolctl's entries (``threadpool_limits``,
``ThreadpoolController.limit``, the decorators) end in the two methods wrapped here. Read and tested with threadpoolctl
3.1 to 3.8.

The arena is listed by ``threadpool_info()`` from threadpoolctl 3.4 on, which has ``register()``, and limited where it
is named: ``threadpool_limits(n, user_api="composable")``. A limit without a name stays what it is without this package,
one of BLAS and OpenMP: it is what people put around a pool so that its tasks may be many.

Loaded by file, without the package around it, so nothing of ours may be imported at the top.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would be a cost of every start
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def counts_of(limiter: Any) -> dict[str, int]:
    """Path of each library that the limiter limits -> how many threads; as threadpoolctl matches them."""
    wanted = limiter._limits or {}
    counts: dict[str, int] = {}
    for library in limiter._controller.lib_controllers:
        for key in (library.filepath, library.prefix, library.user_api):
            if key in wanted:
                if wanted[key] is not None:
                    counts[library.filepath] = wanted[key]
                break
    return counts


def install(threadpoolctl: ModuleType) -> None:
    """Patch the imported module ``threadpoolctl``. Idempotent."""
    _register(threadpoolctl)
    limiter = threadpoolctl._ThreadpoolLimiter
    if hasattr(limiter, "_composable_threads_stock"):
        return
    stock = limiter._composable_threads_stock = limiter._set_threadpool_limits, limiter.restore_original_limits

    def _set_threadpool_limits(self: Any) -> None:
        new_limits = getattr(sys.modules.get("composable_threads._native"), "UserLimits", None)
        if new_limits is None:
            stock[0](self)
            return
        limits = new_limits()
        stock[0](self)
        limits.begin(counts_of(self))
        # Until 3.1 one decorator serves all calls of its function, so there may be several.
        self.__dict__.setdefault("_composable_threads_limits", []).append(limits)

    def restore_original_limits(self: Any) -> None:
        stock[1](self)
        limits = self.__dict__.get("_composable_threads_limits")
        if limits:
            limits.pop().end()

    _set_threadpool_limits.__doc__ = stock[0].__doc__
    restore_original_limits.__doc__ = stock[1].__doc__
    limiter._set_threadpool_limits = _set_threadpool_limits
    limiter.restore_original_limits = limiter.unregister = restore_original_limits


def _register(threadpoolctl: Any) -> None:
    register = getattr(threadpoolctl, "register", None)
    apis = threadpoolctl._ALL_USER_APIS
    if register is None or API in apis:
        return
    register(_new_controller(threadpoolctl.LibController))
    threadpoolctl._ALL_USER_APIS = _Apis(api for api in threadpoolctl._ALL_USER_APIS if api != API)


API = "composable"


class _Apis(list[str]):
    """What a limit without a name is for; the arena can be named beside these."""

    def __contains__(self, api: object) -> bool:
        return api == API or super().__contains__(api)


def _new_controller(base: Any) -> Any:
    from weakref import WeakKeyDictionary

    # Controller -> whether it set a task's limit, what was set before in the module's terms, and in threadpoolctl's. It
    # puts back by number, for all libraries, also those it did not limit; and several limits of one controller nest.
    before: WeakKeyDictionary[Any, tuple[bool, Any, int]] = WeakKeyDictionary()
    # Controller -> what it said before the arena was made, whose size may have turned out to be another.
    planned: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def native() -> Any:
        return sys.modules["composable_threads._native"]

    class ComposableController(base):  # type: ignore[misc]
        """The arena: in a task what the task itself opens, else all of it."""

        user_api = API
        internal_api = API
        filename_prefixes = ("_native",)
        check_symbols = ("composable_threads_arena",)

        def get_num_threads(self) -> int:
            core = native()
            started = core.started_slots()
            if started is None:
                planned[self] = core.planned_slots()
                return planned[self]
            limited: int = min(core.thread_limit() or started, core.base())
            return limited

        def set_num_threads(self, num_threads: Any) -> None:
            core, now = native(), self.get_num_threads()
            in_task, raw, known = before.get(self, (False, None, None))
            if raw is not None and num_threads == known:
                del before[self]
                (core.set_thread_limit if in_task else core.set_base)(raw)
                return
            if num_threads == now or (raw is None and num_threads == planned.get(self)):
                return
            if isinstance(num_threads, bool) or not hasattr(num_threads, "__index__") or num_threads < 1:
                raise ValueError(f"a limit of the arena must be a whole number of at least 1, not {num_threads!r}")
            in_task = core.task_depth() > 0
            if raw is None:
                core.slots()
                before[self] = in_task, core.thread_limit() if in_task else core.base(), now
            (core.set_thread_limit if in_task else core.set_base)(min(num_threads, 1 << 30))

        def get_version(self) -> str:
            return str(sys.modules["composable_threads"].__version__)

    return ComposableController


def activate(threadpoolctl: ModuleType) -> None:
    """Limits count with and without an activation."""


def deactivate(threadpoolctl: ModuleType) -> None:
    """Limits count with and without an activation."""
