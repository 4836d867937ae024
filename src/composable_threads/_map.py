"""``Executor.map``: many calls of one function, without a future for each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, TimeoutError
from contextvars import copy_context
from itertools import islice
from typing import TYPE_CHECKING, Any

from . import _native
from ._blocking import awaiting, here
from ._semaphore import BinarySemaphore

if TYPE_CHECKING:
    from .executor import _Tasks

# Going through these runs no code of the program's, which might want to see its calls begin meanwhile.
_INERT = frozenset({range, list, tuple, str, bytes, bytearray, dict, set, frozenset})
_PIECE = 1024

_PENDING = object()


class _Failure:
    __slots__ = ("error",)

    def __init__(self, error: BaseException):
        self.error = error


class MapCalls:
    """The calls of one `map` in an executor's group. Each run of it runs the next call that nobody has drawn.

    Results are left in a list. What the consumer waits for is a number in `_awaited`: whoever has that result releases
    `_arrived`. One that comes late, when the consumer has seen the result already, makes the next wait look twice.
    """

    def __init__(self, tasks: _Tasks, fn: Callable[..., Any]):
        self._tasks = tasks
        self._fn = self.trace_label = fn
        self._calls: deque[tuple[int, tuple[Any, ...], Any]] = deque()  # number, arguments, context
        self._outcomes: list[Any] = []
        self._awaited = -1
        self._depth = _native.deepen()
        self._arrived = BinarySemaphore()

    def submit_all(self, iterables: tuple[Iterable[Any], ...], in_context: bool) -> None:
        """Draw from `iterables` until the shortest ends; what was drawn is submitted before more is."""
        arguments = enumerate(zip(*iterables, strict=False))
        piece = _PIECE if all(type(iterable) in _INERT for iterable in iterables) else 1
        while drawn := [(*call, copy_context() if in_context else None) for call in islice(arguments, piece)]:
            self._outcomes += [_PENDING] * len(drawn)
            self._calls += drawn
            self._tasks.submit_runs(self, len(drawn))

    def results(self, end: float | None) -> Iterator[Any]:
        """The results in order; a generator whose end drops what has not begun. `end`: by the monotonic clock."""
        try:
            for number in range(len(self._outcomes)):
                yield self._take(number, end)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Begin no more calls; their results are a CancelledError."""
        if not self._calls:
            return
        while self._calls:
            try:
                number = self._calls.popleft()[0]
            except IndexError:
                break
            self._settle(number, _Failure(CancelledError()))
        self._tasks.group.withdraw(self)

    def _settle(self, number: int, outcome: Any) -> None:
        self._outcomes[number] = outcome
        if self._awaited == number:
            self._arrived.release()

    def __call__(self) -> bool | None:
        try:
            number, arguments, context = self._calls.popleft()
        except IndexError:
            return False
        tasks, running, outside = self._tasks, here.running, here.work
        if context is None:
            context = tasks.context_here()
        running.append(tasks)
        here.work = None
        _native.nest(self._depth)
        try:
            tasks.prepare_thread()
            outcome = context.run(self._fn, *arguments)
        except BaseException as error:
            outcome = _Failure(error)
        running.pop()
        here.work = outside
        self._settle(number, outcome)
        # An error's traceback refers to this frame: break the cycle.
        del self, outcome
        return None

    def _take(self, number: int, end: float | None) -> Any:
        outcomes = self._outcomes
        if outcomes[number] is _PENDING:
            self._await(number, end)
        outcome, outcomes[number] = outcomes[number], None
        if type(outcome) is not _Failure:
            return outcome
        try:
            raise outcome.error
        finally:
            del outcome, self

    def _await(self, number: int, end: float | None) -> None:
        pending = self._outcomes
        self._awaited = number
        in_task = bool(here.running) or _native.holds_permit()
        while pending[number] is _PENDING:
            if not in_task:
                self._sleep(end)
            elif end is None and self._begins_by(number) and self._tasks.may_run_here():
                # As ArenaFuture does.
                group = _native.TaskGroup(1)
                group.submit(self)
                group.help()
            else:
                with self._tasks.one_place_lent(), awaiting():
                    self._sleep(end)

    def _begins_by(self, number: int) -> bool:
        try:
            return self._calls[0][0] <= number
        except IndexError:
            return False

    def _sleep(self, end: float | None) -> None:
        if not self._arrived.acquire(None if end is None else end - time.monotonic()):
            raise TimeoutError
