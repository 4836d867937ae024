"""One call of a ``joblib.Parallel`` object in the arena: its tasks, how large its batches are, whether it is over."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from threading import Lock
from time import perf_counter
from typing import Any

from joblib import parallel as joblib_parallel
from joblib._parallel_backends import _retrieve_traceback_capturing_wrapped_call
from joblib.parallel import BatchedCalls, parallel_config

from .. import _native
from .._relay import Relay
from .inner_threads import inner_limit

try:
    from joblib._utils import _ExceptionWithTraceback
except (
    ImportError
):  # no semaphores (no /dev/shm): Joblib does without processes, and without what it needs for them only
    _ExceptionWithTraceback = None

# A batch is about so many seconds of making, running and collecting its tasks, if Joblib may choose its size ...
BATCH_SECONDS = 0.001
# ... and at most so many times as large as the one before.
GROWTH = 8

_forks = 0  # how many processes up the parent is that loaded this module


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)

of_thread = joblib_parallel._backend  # where Joblib keeps the configuration of each thread
by_default = joblib_parallel.default_parallel_config


class Call:
    """One call of a Parallel object.

    Joblib's callbacks, which also take the next tasks from the user's iterator, run in the threads that run tasks, one
    at a time. Not because of Joblib's lock: two threads that want it would hand it back and forth, see Relay.
    """

    def __init__(self, parallel: Any, n_jobs: int, inner: int | None):
        _native.deepen()
        self.group = _native.TaskGroup(n_jobs)
        self.nested: tuple[Any, int | None] | None = None  # what get_nested_backend() gives for all batches
        self._parallel = parallel
        self._n_jobs = n_jobs
        self.inner = inner
        self.over = False  # nothing that begins now is waited for
        self._submitted = 0  # tasks; Joblib submits under its lock
        self._latest = -1  # the last in order that has begun
        self._beginning = Lock()
        self._error: BaseException | None = None
        self._born = _forks
        self._site = _call_site() if _native.trace_on() else None
        self._trace_labels: dict[Any, str] = {}
        self._relay = Relay(self._hear)
        self._configs: dict[int, tuple[dict[str, Any], Any, dict[str, Any]]] = {}
        # Batches that Joblib left there when it aborted an earlier call would run in this one. And Joblib needs no more
        # of a queue than this one can do, which is in C.
        self._ready = parallel._ready_batches = SimpleQueue()
        # Only where nobody can tell that results come together: a generator's consumer, or a time-out, could.
        self._chooses = parallel.batch_size == "auto" and not parallel.return_generator and parallel.timeout is None
        self._size = 1
        self._drawn = 0  # so many tasks were drawn before ...
        self._drawn_at = perf_counter()  # ... this
        self._told = False

    def batch_size(self) -> int:
        """How many tasks Joblib should put in a batch.

        Joblib draws that many times n_jobs from the iterator when all it drew before is dispatched. How long that took
        says what a task costs, including the iterator: one that is slow, as if it made large arguments, is not asked
        for more than is needed soon.
        """
        parallel = self._parallel
        if self.over or parallel is None:
            return 1
        if not self._chooses or not self._ready.empty():
            return self._size
        now, drawn = perf_counter(), parallel.n_dispatched_tasks
        if drawn > self._drawn:
            if self._told:
                per_task = max((now - self._drawn_at) / (drawn - self._drawn), 1e-7)
                self._size = max(1, min(int(BATCH_SECONDS / per_task), GROWTH * self._size))
            self._drawn = drawn
            self._drawn_at = now
        return self._size

    def submit(self, func: Any, callback: Callable[[Any], None] | None) -> None:
        # A callback may be about to submit when the call is aborted: either close() finds the batch or this sees it.
        if self.over:
            return
        first = self._submitted
        if self._chooses and type(func) is BatchedCalls and len(func.items) > 1:
            self._submitted += len(func.items)
            self.group.submit(_SharedBatch(self, func, callback, first), len(func.items))
        else:
            self._submitted += 1
            self.group.submit(_Batch(self, func, callback, first))
        if self.over:
            self.group.drop_queued()

    def begins(self, number: int) -> bool:
        """Whether this task begins, which was taken from the queue; not where the call is over.

        Except before one that has begun: tasks begin in order, so that one may wait for it, perhaps in the caller.
        """
        with self._beginning:
            if number > self._latest:
                if self.over:
                    return False
                self._latest = number
        return True

    def run(self, func: Any) -> Any:
        """What ``func()`` gives, which is Joblib's batch."""
        if type(func) is not BatchedCalls:
            return Context().run(func)
        outside = getattr(of_thread, "config", by_default)
        of_thread.config = self.config_inside(func, outside)
        context = Context()
        try:
            return [context.run(task, *args, **kwargs) for task, args, kwargs in func.items]
        finally:
            of_thread.config = outside

    def config_inside(self, batch: BatchedCalls, outside: dict[str, Any]) -> dict[str, Any]:
        """Joblib's configuration in a task, on a thread that has `outside`; Joblib makes it anew for every batch."""
        known = self._configs.get(id(outside))
        if known is not None and known[0] is outside and known[1] is batch._backend:
            return known[2]
        with parallel_config(backend=batch._backend, n_jobs=batch._n_jobs) as inside:
            pass
        made: dict[str, Any] = inside
        self._configs[id(outside)] = outside, batch._backend, made
        return made

    def tell(self, callback: Callable[[Any], None] | None, out: Any) -> None:
        """Tell Joblib of a batch's end, sooner or later."""
        if callback is not None:
            self._relay(callback, out)
        parallel = self._parallel
        if parallel is None or parallel._aborting:
            self.over = True
            self.group.nudge()

    def _hear(self, callback: Callable[[Any], None], out: Any) -> None:
        self._told = True
        try:
            callback(out)
        except BaseException as error:
            self.fail(error)

    def trace_label(self, func: Any) -> str:
        """What a trace calls a batch: its function and where Parallel was called."""
        task: Any = func.items[0] if type(func) is BatchedCalls and func.items else (func, ())
        function = task[1][1] if task[0] is _run_limited else task[0]
        function = getattr(function, "func", function)
        code = getattr(function, "__code__", type(function))
        label = self._trace_labels.get(code)
        if label is None:
            name = getattr(function, "__qualname__", type(function).__qualname__)
            label = self._trace_labels[code] = name if self._site is None else f"{name}, Parallel at {self._site}"
        return label

    def close(self) -> None:
        """Drop what is queued, now and later. Tasks that run now end in their own time, unheard."""
        self.over = True
        self._parallel = None
        self.group.drop_queued()
        self.group.nudge()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the caller; for one that Joblib did not hear of."""
        self._error = self._error or error
        self.over = True
        self.group.nudge()

    def ended(self) -> bool:
        """Whether the caller should stop waiting though tasks are left; raises the error that befell a callback.

        RuntimeError in a child that was forked during the call: nobody there would ever end its tasks.
        """
        if self._error is not None:
            raise self._error
        if self._born != _forks:
            raise RuntimeError("the process was forked during this call: its tasks stayed with the parent")
        parallel = self._parallel
        return parallel is None or parallel._aborting


_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_JOBLIB = os.path.dirname(os.path.abspath(joblib_parallel.__file__))


def _call_site() -> str | None:
    """`file.py:line` of the innermost frame that is neither Joblib's nor ours."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_OURS, _JOBLIB)):
            return f"{os.path.basename(file)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


# What the arena runs. Whatever happens in there, the callback or the caller must hear of it: Joblib would wait forever.
#
# Tasks see no context variables but their own, as on the new threads of the stock backend: the caller, which runs some
# of them, has others than the workers, and what a task sets must not be left in either.


class _Batch:
    """One of Joblib's batches, as one task."""

    __slots__ = ("_call", "_callback", "_func", "_number", "trace_label")

    def __init__(self, call: Call, func: Callable[[], Any], callback: Callable[[Any], None] | None, number: int):
        self._call = call
        self._func = func
        self._callback = callback
        self._number = number
        self.trace_label = call.trace_label(func) if _native.trace_on() else _UNNAMED

    def __call__(self) -> None:
        call, func = self._call, self._func
        if not call.begins(self._number):
            return
        try:
            try:
                with inner_limit(call.inner):
                    out = call.run(func)
            except BaseException as error:
                out = _captured(error)
            call.tell(self._callback, out)
        except BaseException as error:
            call.fail(error)


_NONE_LEFT: tuple[int, Any] = -1, None
_UNNAMED = "submitted before the trace, Parallel"


class _SharedBatch:
    """One of Joblib's batches, of which every item is a task.

    So others take the rest where one item turns out to be long, or waits for a later one.
    """

    __slots__ = ("_call", "_callback", "_first", "_func", "_inside", "_left", "_numbered", "_results", "trace_label")

    def __init__(self, call: Call, func: BatchedCalls, callback: Callable[[Any], None] | None, first: int):
        count = len(func.items)
        if call.inner is not None:
            func.items = [(_run_limited, (call.inner, *item), {}) for item in func.items]
        self._call = call
        self._func = func
        self._callback = callback
        self._first = first
        # Configurations of the thread that ran the last one: outside, inside.
        self._inside: tuple[Any, Any] = None, None
        # Iterators in C give each value once, whoever asks.
        self._numbered = enumerate(func.items)
        self._left = iter(range(count - 1, -1, -1))
        self._results: list[Any] = [None] * count
        self.trace_label = call.trace_label(func) if _native.trace_on() else _UNNAMED

    def __call__(self) -> bool | None:
        call = self._call
        try:
            try:
                number, item = next(self._numbered, _NONE_LEFT)
                if item is None or not call.begins(self._first + number):
                    return False
                task, args, kwargs = item
                outside = getattr(of_thread, "config", by_default)
                known, inside = self._inside
                if known is not outside:
                    inside = call.config_inside(self._func, outside)
                    self._inside = outside, inside
                of_thread.config = inside
                try:
                    self._results[number] = Context().run(task, *args, **kwargs)
                finally:
                    of_thread.config = outside
            except BaseException as error:
                out: Any = _captured(error)
            else:
                # Once this item is counted another thread may have ended the batch; Joblib would not hear of Ctrl-C
                # then.
                if next(self._left) > 0:
                    return None
                out = self._results
            call.tell(self._callback, out)
        except BaseException as error:
            call.fail(error)
        return None


class _Raised:
    """An error that a batch ended with; a task may also return one."""

    def __init__(self, error: BaseException):
        self.error = error


def retrieved(out: Any) -> Any:
    """What a batch gave, from what Joblib's callback was told; raises what it raised."""
    if _ExceptionWithTraceback is not None:
        return _retrieve_traceback_capturing_wrapped_call(out)
    if type(out) is _Raised:
        raise out.error
    return out


def _run_limited(inner: int, task: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with inner_limit(inner):
        return task(*args, **kwargs)


def _captured(error: BaseException) -> Any:
    if _ExceptionWithTraceback is None:
        return _Raised(error)
    try:
        return _ExceptionWithTraceback(error)
    except BaseException as worse:  # a traceback that cannot be formatted
        return worse
