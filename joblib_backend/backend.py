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
)
from joblib.parallel import TASK_PENDING

from .. import _native
from .._blocking import MOST_AT_ONCE
from .._fork_lock import ForkLock
from .call import Call, retrieved
from .inner_threads import check_inner_limit

# Calls nested deeper than this run in their caller, so that endless recursion ends as Python's does.
DEEPEST = 8
# How often a caller with a time-out looks at the clock, in seconds.
CLOCK_LOOK = 0.05

_claiming = ForkLock()  # which call a backend instance serves


class ComposableBackend(ParallelBackendBase):
    """Runs the batches of a ``joblib.Parallel`` call on the arena's threads.

    Parameters
    ----------
    nesting_level : int or None
        Depth of the enclosing Parallel calls; given by Joblib.
    inner_max_num_threads : int or None
        At most this many threads for BLAS, OpenMP and Numba inside a task. None: their share of the arena.

    Examples
    --------
    Its name makes it; nothing of this package need be imported:

    >>> import joblib
    >>> with joblib.parallel_config("composable"):
    ...     joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(5))
    [0, 1, 4, 9, 16]
    """

    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True
    default_n_jobs = -1  # `parallel_config("composable")` without n_jobs means the whole arena
    nested_n_jobs: int | None = -1  # the same for a call without n_jobs inside a task

    parallel: Any = None
    _call: Call | None = None

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any):
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **options)
        self._n_jobs = 1

    def __getstate__(self) -> dict[str, Any]:
        # Goes to child processes inside the batches of a process backend around us; a call in flight does not.
        return {name: value for name, value in self.__dict__.items() if name not in ("parallel", "_call")}

    @property
    def inner_max_num_threads(self) -> int | None:
        return self._inner

    @inner_max_num_threads.setter
    def inner_max_num_threads(self, count: int | None) -> None:  # set from outside by `parallel_config`
        check_inner_limit(count)
        self._inner = count

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many of the call's tasks may run at once: `n_jobs`, where negative values count from the arena's size."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs < 0:
            return max(_native.slots() + 1 + n_jobs, 1)
        return min(n_jobs, MOST_AT_ONCE)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        with _claiming:
            taken = self.parallel is not None and self.parallel is not parallel
            if not taken:
                self.parallel = parallel
        if taken:
            # One instance may serve several live calls (generators, threads), but its methods do not say which one
            # they mean. The copy has no call: __getstate__.
            raise FallbackToBackend(copy.copy(self))
        self._n_jobs = n_jobs
        self._call = None
        return n_jobs

    def start_call(self) -> None:
        self._call = Call(self.parallel, self._n_jobs, self.inner_max_num_threads)

    def stop_call(self) -> None:
        self.abort_everything()

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> None:
        if self._call is None:
            self.start_call()
        self._call.submit(func, callback)  # type: ignore[union-attr]

    def apply_async(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> None:
        """What ``submit`` was called before Joblib 1.5."""
        self.submit(func, callback)

    def compute_batch_size(self) -> int:
        return 1 if self._call is None else self._call.batch_size()

    def retrieve_result_callback(self, out: Any) -> Any:
        return retrieved(out)

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        parallel, call = self.parallel, self._call
        if call is None:
            yield
        elif parallel.return_generator or parallel.timeout is not None:
            self._raise_unheard()
            awaited = _AwaitedJobs(parallel, call)
            try:
                yield
            finally:
                awaited.stop()
        else:
            call.group.help(call.ended)
            call.ended()  # the last task may have failed beside itself
            self._raise_unheard()
            yield

    def _raise_unheard(self) -> None:
        # With pre_dispatch="all" Joblib looks for errors only while it waits for tasks, and there are none if the
        # iterator failed among the first.
        parallel = self.parallel
        if parallel._aborting and not parallel._wait_retrieval():
            parallel._raise_error_fast()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        if self._call is not None:
            self._call.close()

    def terminate(self) -> None:
        self.abort_everything()
        self.parallel = None

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        call = self._call
        if call is None:
            return self._make_nested()
        if call.nested is None:
            call.nested = self._make_nested()
        return call.nested

    def _make_nested(self) -> tuple[ParallelBackendBase, int | None]:
        level = (self.nesting_level or 0) + 1
        if level >= DEEPEST:
            return SequentialBackend(nesting_level=level), None
        nested = copy.copy(self)
        nested.nesting_level = level
        return nested, self.nested_n_jobs


class ActivatedBackend(ComposableBackend):
    """What ``composable_threads.activate()`` makes the default: a call without n_jobs stays sequential."""

    default_n_jobs = 1
    nested_n_jobs = None


class _AwaitedJobs(deque[Any]):
    """Stands in for ``Parallel._jobs`` while results are retrieved: asking for its length first waits for one.

    Joblib's retrieval loop asks for the length, then sleeps 10 ms if nothing is ready; with this it is.
    """

    def __init__(self, parallel: Any, call: Call):
        self._parallel = parallel
        self._call: Call | None = call
        with parallel._lock:
            super().__init__(parallel._jobs)
            parallel._jobs = self

    def stop(self) -> None:
        self._call = None

    def __len__(self) -> int:
        call = self._call
        if call is not None and not self._ready(call):
            # Only while it waits: what a generator's consumer does in between is computing like any other.
            held = _native.block_begin()
            try:
                self._wait(call)
            finally:
                _native.block_end(held)
        return super().__len__()

    def _ready(self, call: Call) -> bool:
        if call.ended() or not self._parallel._wait_retrieval():
            return True
        if not self._parallel.return_ordered:
            return super().__len__() > 0
        return super().__len__() > 0 and self[0].status != TASK_PENDING

    def _wait(self, call: Call) -> None:
        timeout = self._parallel.timeout
        if timeout is None:
            call.group.help(lambda: self._ready(call), run=False)
            return
        judged = None
        while not self._ready(call):
            judged = judged or self._judged_job()
            if judged is not None:
                judged.get_status(timeout)  # makes it an error if it is late
            look = max(0, min(CLOCK_LOOK, timeout))
            if call.group.help(lambda: self._ready(call), run=False, timeout=look):
                return

    def _judged_job(self) -> Any:
        """The job whose time runs while the caller waits: the next result's, or without an order any that is out."""
        try:
            if self._parallel.return_ordered:
                return self[0]
            job = self._parallel._jobs_set.pop()
            self._parallel._jobs_set.add(job)
        except (IndexError, KeyError, AttributeError):  # none yet; Joblib 1.4 does not judge without an order
            return None
        job._completion_timeout_counter = None
        return job
