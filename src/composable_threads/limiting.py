"""``limit()``: the arena made narrower for a block."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from . import _native
from ._blocking import MOST_AT_ONCE
from .executor import check_workers

SCOPES = ("process", "thread")


class limit:
    """Context in which at most `n` threads compute for the arena.

    With ``scope="process"`` the limit holds for everybody, whoever asks for threads. Of several such blocks at once the
    smallest `n` stands; each ends by itself, in any order, from any thread. What runs when it begins is not
    interrupted: a region's helpers step back at their next block, tasks at their end. A thread of the program's own
    that enters a region or computes a graph always goes on, with no helper then. BLAS and OpenMP calls in tasks get
    their share of `n`; those of the program outside tasks keep the user's width. At the end the arena is as wide as
    before at once, and threads join what is open.

    With ``scope="thread"`` it holds for what the calling thread opens in the block: regions, Joblib calls, Dask graphs,
    and executors and pools made there for as long as they live. Everything nested in those shares the `n`. Inside a
    task, BLAS and OpenMP calls use at most `n` threads. Nested blocks of a thread take the smaller `n`, and end in
    reverse order.

    In the child of a fork the limits of the forking thread go on, those of other threads do not.

    Parameters
    ----------
    n : int
        At least 1; P or more changes nothing.
    scope : {"process", "thread"}
        For whom.

    Raises
    ------
    TypeError, ValueError
        If `n` is not a whole number of at least 1, or `scope` another word.
    RuntimeError
        If a context is entered twice; if one of a thread is left by another thread, or before one that was entered
        later.
    """

    def __init__(self, n: int, *, scope: str = "process") -> None:
        if n is None or isinstance(n, bool):
            raise TypeError(f"n must be a whole number, not {n!r}")
        count = check_workers(n, "n")
        assert count is not None
        if scope not in SCOPES:
            raise ValueError(f"scope must be one of {', '.join(map(repr, SCOPES))}, not {scope!r}")
        self._count = min(count, MOST_AT_ONCE)
        self._scope = scope
        self._inner: list[Any] = []
        self._used = False

    def __enter__(self) -> limit:
        if self._used:
            raise RuntimeError("this limit() context is in use already; make one per block")
        self._used = True
        if self._scope == "process":
            self._inner = [_native.ArenaLimit(self._count)]
        else:
            count = min(self._count, _native.thread_limit() or self._count)
            self._inner = [_ThreadLimit(count)]
            if _native.task_depth():
                self._inner.append(_native.WidthLimit(count))
        for context in self._inner:
            context.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._inner:
            raise RuntimeError("this limit() context was not entered")
        if self._scope == "thread":
            self._inner[0].check()
        while self._inner:
            self._inner.pop().__exit__(None, None, None)


class _ThreadLimit:
    """The calling thread's own limit."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        self._outside = _native.set_thread_limit(self._count)
        self._below = _here.innermost
        _here.innermost = self

    def check(self) -> None:
        if self._thread != threading.get_ident():
            raise RuntimeError("a limit() of a thread must be left by the thread that entered it")
        if _here.innermost is not self:
            raise RuntimeError("limits of a thread must end in reverse order")

    def __exit__(self, *_: object) -> None:
        _native.set_thread_limit(self._outside)
        _here.innermost = self._below


class _Here(threading.local):
    innermost: _ThreadLimit | None = None


_here = _Here()
