"""A Joblib backend whose tasks run in the arena.

Data flow of one call: ``submit`` puts a batch into the call's task group; whichever thread runs the batch also runs
Joblib's callback, which may submit the next batch. The caller, instead of polling, runs batches of its own call inside
``retrieval_context`` until none is left. A caller that must not run batches (a generator's consumer, a call with a
time-out) sleeps there until one finishes.
"""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from joblib._parallel_backends import (
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    _retrieve_traceback_capturing_wrapped_call,
    _TracebackCapturingWrapper,
)
from joblib.parallel import TASK_PENDING

from .. import _native
from .inner_threads import inner_limit

# Calls nested deeper than this run in their caller, so that endless recursion ends as Python's does.
DEEPEST = 8
# How often a caller with a time-out looks at the clock, in seconds.
CLOCK_LOOK = 0.05


class ComposableBackend(ParallelBackendBase):
    """Runs the batches of a ``joblib.Parallel`` call on the arena's threads.

    Parameters
    ----------
    nesting_level : int or None
        Depth of the enclosing Parallel calls; given by Joblib.
    inner_max_num_threads : int or None
        At most this many threads for BLAS, OpenMP and Numba inside a task. None: their share of the arena.
    """

    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True
    default_n_jobs = -1  # `parallel_config("composable")` without n_jobs means the whole arena

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any):
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **options)
        self.parallel = None
        self._group: _native.TaskGroup | None = None
        self._n_jobs = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Goes to child processes inside the batches of a process backend around us; a call in flight does not.
        return type(self), (self.nesting_level, self.inner_max_num_threads)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many of the call's tasks may run at once: `n_jobs`, where negative values count from the arena's size."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs < 0:
            return max(_native.slots() + 1 + n_jobs, 1)
        return n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if self.parallel is not None and self.parallel is not parallel:
            # One instance may serve several live calls (generators, nested contexts), but its methods do not say
            # which one they mean.
            other = copy.copy(self)
            other.parallel = other._group = None
            raise FallbackToBackend(other)
        self.parallel = parallel
        self._n_jobs = n_jobs
        return n_jobs

    def start_call(self) -> None:
        self._group = _native.TaskGroup(self._n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> _Batch:
        if self._group is None:
            self.start_call()
        batch = _Batch(func, callback, self.inner_max_num_threads)
        self._group.submit(batch)
        return batch

    def retrieve_result_callback(self, out: Any) -> Any:
        return _retrieve_traceback_capturing_wrapped_call(out)

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        parallel, group = self.parallel, self._group
        if group is None:
            yield
        elif parallel.return_generator or parallel.timeout is not None:
            waiting = _AwaitedJobs(parallel, group)
            held = _native.block_begin()
            try:
                yield
            finally:
                waiting.stop()
                _native.block_end(held)
        else:
            group.help(lambda: parallel._aborting)
            yield

    def abort_everything(self, ensure_ready: bool = True) -> None:
        if self._group is None:
            return
        group, self._group = self._group, None
        group.drop_queued()
        if ensure_ready:
            self.start_call()  # tasks of the aborted call that still run do not count against the next one

    def terminate(self) -> None:
        self.parallel = None
        self._group = None

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        level = (self.nesting_level or 0) + 1
        if level >= DEEPEST:
            return SequentialBackend(nesting_level=level), None
        return type(self)(nesting_level=level, inner_max_num_threads=self.inner_max_num_threads), -1


class ActivatedBackend(ComposableBackend):
    """What ``composable_threads.activate()`` puts in the place of the default: a call without n_jobs stays sequential."""

    default_n_jobs = 1


class _Batch:
    """What the arena runs: Joblib's batch, then Joblib's callback."""

    __slots__ = ("_callback", "_func", "_inner")

    def __init__(self, func: Callable[[], Any], callback: Callable[[Any], None] | None, inner: int | None):
        self._func = _TracebackCapturingWrapper(func)
        self._callback = callback
        self._inner = inner

    def __call__(self) -> None:
        with inner_limit(self._inner):
            out = self._func()
        if self._callback is not None:
            self._callback(out)


class _AwaitedJobs(deque):
    """Stands in for ``Parallel._jobs`` while results are retrieved: asking for its length first waits for one.

    Joblib's retrieval loop asks for the length, then sleeps 10 ms if nothing is ready; with this it is.
    """

    def __init__(self, parallel: Any, group: _native.TaskGroup):
        self._parallel = parallel
        self._group: _native.TaskGroup | None = group
        with parallel._lock:
            super().__init__(parallel._jobs)
            parallel._jobs = self

    def stop(self) -> None:
        self._group = None

    def _ready(self) -> bool:
        parallel = self._parallel
        if parallel._aborting or not parallel._wait_retrieval():
            return True
        if not parallel.return_ordered:
            return super().__len__() > 0
        return super().__len__() > 0 and self[0].status != TASK_PENDING

    def __len__(self) -> int:
        if self._group is not None:
            timeout = None if self._parallel.timeout is None else CLOCK_LOOK
            self._group.help(self._ready, run=False, timeout=timeout)
        return super().__len__()
