"""``activate()``: every door of a program leads to the arena, without a change to the program."""

from __future__ import annotations

import concurrent.futures.thread as futures
import math
import multiprocessing.pool as pools
import sys
import threading
import weakref
from types import TracebackType
from typing import Any

import _composable_threads_boot as boot

from . import _native, spinning
from ._blocking import MOST_AT_ONCE
from ._fork_lock import ForkLock
from .executor import _Tasks, check_workers
from .pool import ThreadPool

_lock = ForkLock()

_active = 0
_everywhere = 0  # of those, how many route pools that are made outside tasks too
_open = False  # the doors
_changer = 0  # the thread that opens or closes them
_undo: list[tuple[Any, str, Any]] = []
_executors: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # made in an activation, by id()


class Activation:
    """What `activate` returns: a context manager whose end, like ``deactivate()``, undoes it. Activations nest."""

    def __init__(self) -> None:
        self._live = False  # only activate() makes a live one
        self._pools_everywhere = True

    def deactivate(self) -> None:
        """Undo this activation; the doors close with the last one. Calling it again does nothing."""
        with _lock:
            if self._live:
                self._live = False
                _leave(self._pools_everywhere)

    def __enter__(self) -> Activation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deactivate()


def activate(*, slots: int | None = None) -> Activation:
    """Route Numba, Joblib, Dask, ``ThreadPool`` and ``ThreadPoolExecutor`` to the arena.

    Only what the program left to its default or asked threads for is routed: a Numba threading layer, Joblib process
    backend or Dask scheduler that it names stays. Pools that exist already keep their threads. Numba's layer is chosen
    once per process: one that was launched before stays, and ours stays after the end.

    BLAS and OpenMP libraries that are loaded from now on let idle helper threads sleep soon, unless the environment
    says how long they spin. Widths above P (a container's quota that a library does not see) are lowered to P on the
    calling thread, on the thread that imports the library and on those that the program starts from now on. MKL keeps
    the threading layer it has: on oneTBB, with ``MKL_THREADING_LAYER=TBB``, it runs on the arena's threads, but knows
    no ``mkl.set_num_threads`` and no ``MKL_NUM_THREADS``, so that is the user's choice.

    Parameters
    ----------
    slots : int, optional
        The arena's size P, at most what the process may use; default: that.

    Raises
    ------
    TypeError, ValueError
        If `slots` is not a whole number of at least 1, or ``COMPOSABLE_NUM_THREADS`` is not.
    RuntimeError
        If the arena has begun to run with another size.

    Examples
    --------
    >>> import threading
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from composable_threads import activate
    >>> with activate():
    ...     with ThreadPoolExecutor() as executor:
    ...         executor.submit(lambda: threading.current_thread().name).result().split("-")[0]
    'composable'
    """
    return _activate(slots, pools_everywhere=True)


def activate_for_tasks(*, slots: int | None = None) -> Activation:
    """`activate` for a process that serves others, as a worker of Dask's does.

    Of the pools only those that are made in tasks are routed: the process's own I/O, as an event loop's look-up of
    names, must not queue behind what its tasks compute.
    """
    return _activate(slots, pools_everywhere=False)


def _activate(slots: int | None, *, pools_everywhere: bool) -> Activation:
    if slots is not None:
        check_workers(slots, "slots")
        try:
            if slots != _native.started_slots():  # what the process may use can have shrunk since
                _native.configure(min(slots, _native.limits()["slots"]))
        except RuntimeError as error:
            raise RuntimeError(str(error)) from None
    else:
        _native.limits()  # a bad COMPOSABLE_NUM_THREADS is told here, not in some thread
    activation = Activation()
    with _lock:
        _enter(pools_everywhere)
        activation._live = True
        activation._pools_everywhere = pools_everywhere
    return activation


def is_active() -> bool:
    """Whether an activation is live."""
    return _active > 0


_INHERITED = object()


def _patch(owner: Any, name: str, value: Any) -> None:
    _undo.append((owner, name, vars(owner).get(name, _INHERITED)))
    setattr(owner, name, value)


def _enter(pools_everywhere: bool) -> None:
    global _active, _everywhere
    _everywhere += pools_everywhere
    _active += 1
    _settle()


def _leave(pools_everywhere: bool) -> None:
    global _active, _everywhere
    _everywhere -= pools_everywhere
    _active -= 1
    _settle()


def _settle() -> None:
    """Open the doors if an activation is live, else close them.

    A signal handler or a destructor may activate in the middle of this: the call that it interrupts sees to it then.
    """
    global _open, _changer
    here = threading.get_ident()
    while _changer != here:  # another one's is of a thread that a fork left behind
        _changer = here
        try:
            if _open != is_active():
                _open = not _open
                if _open:
                    _open_doors()
                else:
                    _close_doors()
        finally:
            _changer = 0
        if _open == is_active():
            return


def _open_doors() -> None:
    _patch_executor(futures.ThreadPoolExecutor)
    _patch_thread_pool(pools.ThreadPool)
    spinning.begin_limits()
    if _native.slots() < _native.limits()["affinity"]:  # else no library believes in more
        _patch_thread(threading.Thread)
    _native.cap_widths(True)
    boot.set_active(True)


def _close_doors() -> None:
    boot.set_active(False)
    _native.cap_widths(False)
    spinning.end_limits()
    while _undo:
        owner, name, value = _undo.pop()
        if value is _INHERITED:
            delattr(owner, name)
        else:
            setattr(owner, name, value)
    for executor in list(_executors.values()):
        _outlive(executor)


def _routes_pools_made_here() -> bool:
    return _everywhere > 0 or _native.task_depth() > 0


def _patch_executor(executor: Any) -> None:
    # Methods, not the name: modules that imported the class before, and their subclasses, are reached too.
    stock_init, stock_submit, stock_map, stock_shutdown = (
        executor.__init__, executor.submit, executor.map, executor.shutdown
    )  # fmt: skip
    stock_start = getattr(executor, "_adjust_thread_count", None)

    def __init__(
        self: Any,
        max_workers: Any = None,
        thread_name_prefix: str = "",
        initializer: Any = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        stock_init(self, max_workers, thread_name_prefix, initializer, initargs, **options)
        if getattr(type(self), "_adjust_thread_count", None) is not stock_start:
            return  # a subclass with threads of its own kind, as distributed's, which its tasks look for
        if not _routes_pools_made_here():
            return
        # The stock one starts threads up to this number, be it whole or not.
        limit = math.ceil(min(self._max_workers, MOST_AT_ONCE))
        self._composable = _Tasks(limit, max_workers is not None, initializer, initargs)
        _executors[id(self)] = self

    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        tasks = self.__dict__.get("_composable")
        if tasks is None:
            return stock_submit(self, fn, *args, **kwargs)
        return tasks.submit(None, fn, args, kwargs)

    def map(
        self: Any, fn: Any, *iterables: Any, timeout: float | None = None, chunksize: int = 1, **options: Any
    ) -> Any:
        tasks = self.__dict__.get("_composable")
        if tasks is None or options or type(self).submit is not submit:  # a subclass may want to see each call
            return stock_map(self, fn, *iterables, timeout=timeout, chunksize=chunksize, **options)
        return tasks.map(fn, iterables, timeout, in_context=False)

    def shutdown(self: Any, wait: bool = True, *, cancel_futures: bool = False) -> None:
        _shutdown(self, stock_shutdown, wait, cancel_futures)

    for ours, stock in ((__init__, stock_init), (submit, stock_submit), (map, stock_map), (shutdown, stock_shutdown)):
        ours.__doc__ = stock.__doc__
        _patch(executor, ours.__name__, ours)


def _shutdown(executor: Any, stock_shutdown: Any, wait: bool, cancel_futures: bool) -> None:
    tasks = executor.__dict__.get("_composable")
    if tasks is not None:
        tasks.shutdown(False, cancel_futures)
    stock_shutdown(executor, wait, cancel_futures=cancel_futures)  # it may have had threads outside an activation
    if tasks is not None and wait:
        tasks.join()


def _outlive(executor: Any) -> None:
    # Its class is the stock one again, whose shutdown() knows nothing of tasks in the arena.
    this = weakref.ref(executor)

    def shutdown(wait: bool = True, *, cancel_futures: bool = False) -> None:
        executor = this()
        if executor is not None:
            _shutdown(executor, type(executor).shutdown, wait, cancel_futures)

    executor.shutdown = shutdown


def _patch_thread_pool(pool: Any) -> None:
    stock_init = pool.__init__

    def __init__(self: Any, processes: Any = None, initializer: Any = None, initargs: tuple[Any, ...] = ()) -> None:
        if type(self) is pool and _routes_pools_made_here():
            self.__class__ = ThreadPool
            ThreadPool.__init__(self, processes, initializer, initargs)
        else:  # a subclass may rely on anything
            stock_init(self, processes, initializer, initargs)

    _patch(pool, "__init__", __init__)


def _patch_thread(thread: Any) -> None:
    # The first thing that a thread does, in Python 3.10 to 3.13. `run` is its subclasses', and a frame of ours in it
    # would show in tracebacks.
    stock = getattr(thread, "_set_ident", None)
    if stock is None:
        return

    def _set_ident(self: Any) -> None:
        stock(self)
        _native.cap_thread_widths()

    _patch(thread, "_set_ident", _set_ident)


def numba_layer_in_use() -> str | None:
    """Name of the layer Numba launched in this process; None if none yet."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    return None if parallel is None else parallel._threading_layer
