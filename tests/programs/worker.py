"""The process that programs run in: reads ``(slots, seconds, times, programs)`` and says on stdout how each went."""

from __future__ import annotations

import ast
import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable

from composable_threads import _native

from . import kernels
from .grammar import Node, outcome, own_threads, unsaid_waits
from .interpreter import Interpreter, Wrong, check, name

SETTLE_SECONDS = 5


def quiet() -> None:
    """Python 3.12 and later warn of every fork beside threads, Joblib of a generator that is closed early."""
    warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
    warnings.filterwarnings("ignore", ".*(have been successfully executed|were still being processed).*", UserWarning)


def main() -> None:
    quiet()
    faulthandler.register(signal.SIGALRM, chain=True)
    for line in sys.stdin:
        _run_batch(*ast.literal_eval(line))


def _run_batch(slots: int, seconds: float, times: int, programs: list[Node]) -> None:
    if _native.started_slots() is None:
        _native.configure(slots)
        kernels.compile_all()
        # A child forked while another thread imports a module can never import it: CPython does not renew that lock.
        importlib.import_module("composable_threads.joblib_backend")
    interpreter = Interpreter(slots)
    for number, program in enumerate(programs):
        print("begin", number, flush=True)
        faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            for _ in range(times):
                run_checked(interpreter, slots, program)
        except BaseException as error:
            print("failed", number, repr(_told(error)), flush=True)
        faulthandler.cancel_dump_traceback_later()
    # What is left after all of them, when the spares have gone. Main thread, workers, keeper.
    most = slots + 2 + _library_threads()
    try:
        _settle(lambda: len(os.listdir("/proc/self/task")) <= most, "threads of the OS left", _thread_names)
    except Wrong as error:
        print("left", repr(_told(error)), flush=True)
    print("end", flush=True)


def run_checked(interpreter: Interpreter, slots: int, program: Node) -> None:
    """Run it once; raises Wrong unless everything is as promised."""
    expected, extra, before = outcome(program), own_threads(program), set(threading.enumerate())
    # A thread of the program runs as one more beside tasks, which cannot step back.
    most = slots + extra
    kernels.gauge[:] = 0
    _native.reset_peak()
    try:
        value = interpreter.run(program)
    except Exception as error:
        if name(error) not in expected.errors:
            raise
    else:
        check(not expected.errors, "lost error", "answer", value, "expected", sorted(expected.errors))
        check(value == expected.value, "answer", value, "expected", expected.value)
    _settle(lambda: _is_idle(before), "not idle", lambda: (threading.enumerate(), _native.counts()))
    peak, gauge = _native.counts()["peak_running"], int(kernels.gauge[kernels.MOST])
    check(peak <= most, "peak", peak, "of at most", most)
    most += unsaid_waits(program)
    check(gauge <= most, "threads in kernels", gauge, "of at most", most)


def _is_idle(before: set[threading.Thread]) -> bool:
    counts = _native.counts()
    # The arena's threads are dummies where a task has asked for its thread.
    new = [thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)]
    # A task that waits has no permit, and may yet go on to what it was to run next; so may what is queued.
    left = ("running", "waiting", "in_tasks", "open_tasks", "open_regions")
    return not any(counts[name] for name in left) and kernels.gauge[kernels.NOW] == 0 and before.issuperset(new)


def _settle(settled: Callable[[], bool], what: str, state: Callable[[], object]) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while not settled():
        check(time.monotonic() < deadline, what, state())
        time.sleep(0.002)


def _thread_names() -> list[str]:
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                names.append(file.read().strip())
        except OSError:  # it has just ended
            pass
    return sorted(names)


def _told(error: BaseException) -> str:
    if isinstance(error, Wrong):
        return " ".join(map(str, error.args))
    return "".join(traceback.format_exception(error))


def _library_threads() -> int:
    return _before


# OpenBLAS has its helpers before the first program; a child or a region adds none.
_before = len(os.listdir("/proc/self/task")) - 1

if __name__ == "__main__":
    main()
