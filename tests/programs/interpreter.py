"""Runs a program. Every way of waiting is one that a program on stock threads could have, too."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import dask
import joblib
import numpy as np
from composable_threads import Executor, ThreadPool, _native, blocking
from composable_threads.dask_backend import get

from . import kernels
from .grammar import CAUGHT, ERRORS, Node, factor, outcome, own_threads

CHILD_SECONDS = 40

Calls = list[Callable[[], int]]


class Wrong(BaseException):
    """Something that must not be; no node catches it."""


def check(right: bool, *what: object) -> None:
    if not right:
        raise Wrong(*what)


class Interpreter:
    """Runs nodes in an arena of `slots`.

    `region`: in the iteration of a region, where a wait must be said: the keeper takes no permit from a region.
    """

    def __init__(self, slots: int, *, region: bool = False):
        self._slots = slots
        self._in_region = region

    def run(self, node: Node) -> int:
        kind, options, children = node
        return getattr(self, f"_{kind}")(*((children,) if children else ()), **options)

    def _calls(self, children: list[Node]) -> Calls:
        return [self._weighted(number, child) for number, child in enumerate(children, 1)]

    def _weighted(self, number: int, child: Node) -> Callable[[], int]:
        return lambda: number * self.run(child)

    def _waiting(self, says: bool) -> contextlib.AbstractContextManager:
        return blocking() if says or self._in_region else contextlib.nullcontext()

    # --- leaves

    def _value(self, n: int) -> int:
        return n

    def _spin(self, n: int) -> int:
        total = 0
        for i in range(n):
            total += i
        return total

    def _region(self, n: int) -> int:
        return int(kernels.region(n, kernels.gauge))

    def _nested(self, n: int, m: int) -> int:
        return int(kernels.nested(n, m, kernels.gauge))

    def _gufunc(self, n: int) -> int:
        return int(kernels.row_sums(np.repeat(np.arange(n), 8).reshape(n, 8)).sum())

    def _blas(self, n: int) -> int:
        return int(np.trace(np.dot(factor(n), factor(n)))) + ("blas" in os.environ.get("PROGRAMS_FAULT", ""))

    def _raise(self, error: str, mark: int) -> int:
        raise ERRORS[error](mark)

    def _bad(self, n: int, at: int) -> int:
        return kernels.run_bad(n, at)

    def _fault(self, how: str) -> int:
        """Goes wrong, to see that it is seen; no strategy makes one."""
        match how:
            case "answer":
                return 2
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "thread":
                threading.Thread(target=threading.Event().wait, daemon=True).start()
            case "peak":
                kernels.gauge[kernels.MOST] = 99
            case "hang":
                threading.Event().wait()
            case "child":
                if (child := os.fork()) == 0:
                    threading.Event().wait()
                os.waitpid(child, 0)
        return 1

    # --- doors

    def _joblib(self, children: list[Node], n_jobs: int, batch: Any, form: str, ahead: Any) -> int:
        return self._by_joblib(self._calls(children), n_jobs, batch_size=batch, return_as=form, pre_dispatch=ahead)

    def _by_joblib(self, calls: Calls, n_jobs: int, **options: Any) -> int:
        parallel = joblib.Parallel(n_jobs=n_jobs, backend="composable", **options)
        return sum(parallel(joblib.delayed(call)() for call in calls))

    def _dask(self, children: list[Node], form: str, workers: int | None) -> int:
        calls = self._calls(children)
        if form == "delayed":
            total = dask.delayed(sum)([dask.delayed(call, pure=False)() for call in calls])
            return total.compute(scheduler="composable", num_workers=workers)
        if form == "dict":
            graph: dict = {("task", number): (call,) for number, call in enumerate(calls)}
            return get({**graph, "sum": (sum, list(graph))}, "sum", num_workers=workers)
        graph = {("link", 0): (int,)}
        for number, call in enumerate(calls):
            graph["link", number + 1] = ((lambda before, call=call: before + call()), ("link", number))
        return get(graph, ("link", len(calls)), num_workers=workers)

    def _executor(self, children: list[Node], how: str, workers: int | None) -> int:
        calls = self._calls(children)
        with Executor(workers) as pool:
            if how == "map":
                return sum(pool.map(lambda call: call(), calls))
            futures = [pool.submit(call) for call in calls]
            if how == "callbacks":
                heard: list[cf.Future] = []
                for future in futures:
                    future.add_done_callback(heard.append)
            elif how == "completed":
                futures = list(cf.as_completed(futures))
            elif how == "wait":
                check(not cf.wait(futures).not_done, "wait() ended early")
            if how != "callbacks":
                return sum(future.result() for future in futures)
        check(sorted(map(id, heard)) == sorted(map(id, futures)), "callbacks", len(heard), len(futures))
        return sum(future.result() for future in heard)

    def _pool(self, children: list[Node], how: str, workers: int) -> int:
        calls = self._calls(children)
        with ThreadPool(workers) as pool:
            match how:
                case "map":
                    return sum(pool.map(lambda call: call(), calls))
                case "apply":
                    return sum(pool.apply(call) for call in calls)
                case "imap":
                    return sum(pool.imap(lambda call: call(), calls))
                case "unordered":
                    return sum(pool.imap_unordered(lambda call: call(), calls))
            results = [pool.apply_async(call) for call in calls]
            return sum(result.get() for result in results)

    def _threads(self, children: list[Node], says: bool) -> int:
        results: list[Any] = [None] * len(children)
        inside = Interpreter(self._slots)

        def body(place: int, call: Callable[[], int]) -> None:
            try:
                results[place] = call()
            except BaseException as error:
                results[place] = error

        threads = [
            threading.Thread(target=body, args=(place, call)) for place, call in enumerate(inside._calls(children))
        ]
        for thread in threads:
            thread.start()
        with self._waiting(says):
            for thread in threads:
                thread.join()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return sum(results)

    def _objects(self, children: list[Node]) -> int:
        return kernels.run_objects(Interpreter(self._slots, region=True)._calls(children))

    def _overlap(self, children: list[Node], form: str) -> int:
        first, *rest = self._calls(children)
        parallel = joblib.Parallel(n_jobs=2, backend="composable", return_as=form)
        results = parallel(joblib.delayed(call)() for call in rest)
        try:
            return first() + sum(results)
        finally:
            results.close()

    # --- tasks that wait for one another

    def _through(self, door: str, calls: Calls) -> int:
        """As many at once as there are calls."""
        count = len(calls)
        if door == "joblib":
            return self._by_joblib(calls, count, batch_size=1)
        with Executor(count) if door == "executor" else ThreadPool(count) as pool:
            return sum(list(pool.map(lambda call: call(), calls)))

    def _locked(self, children: list[Node], door: str, says: bool) -> int:
        lock = threading.Lock()

        def inside(call: Callable[[], int]) -> int:
            with self._waiting(says):
                lock.acquire()
            try:
                return call()
            finally:
                lock.release()

        return self._through(door, [lambda call=call: inside(call) for call in self._calls(children)])

    def _meet(self, children: list[Node], door: str, says: bool) -> int:
        barrier = threading.Barrier(len(children))

        def inside(call: Callable[[], int]) -> int:
            try:
                return call()
            finally:
                with self._waiting(says):
                    barrier.wait()

        return self._through(door, [lambda call=call: inside(call) for call in self._calls(children)])

    def _chain(self, children: list[Node], door: str, says: bool) -> int:
        events = [threading.Event() for _ in range(len(children) + 1)]
        events[0].set()

        def inside(place: int, call: Callable[[], int]) -> int:
            with self._waiting(says):
                events[place].wait()
            try:
                return call()
            finally:
                events[place + 1].set()

        calls = enumerate(self._calls(children))
        return self._through(door, [lambda place=place, call=call: inside(place, call) for place, call in calls])

    def _turns(self, children: list[Node], door: str, says: bool) -> int:
        """Each computes, then they leave in order, by a condition."""
        condition, turn = threading.Condition(), [0]

        def inside(place: int, call: Callable[[], int]) -> int:
            try:
                return call()
            finally:
                with self._waiting(says), condition:
                    condition.wait_for(lambda: turn[0] == place)
                    turn[0] += 1
                    condition.notify_all()

        calls = enumerate(self._calls(children))
        return self._through(door, [lambda place=place, call=call: inside(place, call) for place, call in calls])

    # --- ends of all kinds

    def _catch(self, children: list[Node]) -> int:
        (child,) = children
        try:
            return self.run(child)
        except Exception as error:
            allowed = outcome(child).errors
            check(name(error) in allowed, "caught", repr(error), "expected", sorted(allowed))
            return CAUGHT

    def _cancel(self, children: list[Node], how: str) -> int:
        if how == "future":
            return self._cancel_futures(children)
        calls = [lambda child=child: self._catch([child]) for child in children]
        if how == "shutdown":
            pool = Executor(2)
            futures = [pool.submit(call) for call in calls]
            pool.shutdown(cancel_futures=True)
            for future, child in zip(futures, children, strict=True):
                right = future.cancelled() or future.result() == outcome(child).caught().value
                check(future.done() and right, "after shutdown", future)
            return 5
        if how == "generator":
            parallel = joblib.Parallel(n_jobs=2, backend="composable", return_as="generator")
            results = parallel(joblib.delayed(call)() for call in calls)
            first = next(results)
            results.close()
            return first
        if how == "map":
            with Executor(2) as pool:
                results = pool.map(lambda call: call(), calls)
                first = next(results)
                results.close()
                return first
        with ThreadPool(2) as pool:  # whose end is terminate()
            return next(pool.imap(lambda call: call(), calls))

    def _cancel_futures(self, children: list[Node]) -> int:
        """Every second one, while the executor's one place is taken."""
        gate = threading.Event()

        def hold() -> None:
            with blocking():
                gate.wait()

        with Executor(1) as pool:
            pool.submit(hold)
            futures = [pool.submit(call) for call in self._calls(children)]
            check(all(future.cancel() for future in futures[1::2]), "a queued future was not cancelled")
            gate.set()
            total = sum(future.result() for future in futures[::2])
        check(all(future.cancelled() for future in futures[1::2]), "a cancelled future ran")
        return total

    def _fork(self, children: list[Node]) -> int:
        (child,) = children
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be_child(child, writer)
        os.close(writer)
        with blocking(), open(reader, "rb") as pipe:
            line = pipe.readline().decode()  # other children may hold the writer open, so not to its end
            status = os.waitpid(pid, 0)[1]
        check(status == 0 and line.endswith("\n"), "child", status, line)
        kind, _, rest = line.strip().partition(" ")
        if kind == "value":
            return int(rest)
        check(kind in ERRORS, "child", line)
        raise ERRORS[kind](int(rest))

    def _be_child(self, child: Node, writer: int) -> None:
        # The watchdog stayed with the parent; faulthandler shows the stacks at this signal, then the child ends by it.
        signal.alarm(CHILD_SECONDS)
        try:
            kernels.gauge[:] = 0
            _native.reset_peak()
            try:
                text = f"value {self.run(child)}"
            except Exception as error:
                text = "{} {}".format(*name(error))
            most, peak = self._slots + own_threads(child), _native.counts()["peak_running"]
            if peak > most:
                text = f"wrong peak {peak} of {most}"
        except BaseException as error:
            text = f"wrong {error!r}".replace("\n", " ")
        with contextlib.suppress(BaseException):
            os.write(writer, f"{text}\n".encode())
        os._exit(0)


def name(error: BaseException) -> tuple[str, Any]:
    return type(error).__name__, error.args[0] if len(error.args) == 1 else error.args
