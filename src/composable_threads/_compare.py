"""Runs a program stock and composable in turn, measures both from outside, and prints one table.

Time and context switches are the kernel's own account of the process and the children it waited for; threads are
sampled. Linux only: it reads /proc.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import FrameType
from typing import IO

TICK = 0.005  # seconds between two samples of the threads
GRACE = 2.0  # seconds that a process told to end has before it is killed
TAIL = 20  # lines of a failed run's output that are shown
COLUMNS = {  # of the table: the Sample's field, its title, its format
    "wall_seconds": ("wall s", "{:.3f}"),
    "cpu_seconds": ("CPU s", "{:.2f}"),
    "context_switches": ("context switches", "{:,.0f}"),
    "peak_threads": ("peak threads", "{:.0f}"),
}


@dataclass(frozen=True)
class Sample:
    """One run. A run that was given up has no CPU time and no switches: nobody knows what it still needed."""

    wall_seconds: float
    cpu_seconds: float | None
    context_switches: int | None
    peak_threads: int
    finished: bool


class Stopped(BaseException):
    """This process was told by a signal to end."""


class Tree:
    """A process and its descendants, those included that have lost their parent since they were met."""

    def __init__(self, root: int) -> None:
        self.peak = 1  # what has ended before the first look had its main thread
        # By process id: its /proc status, open, so that a reused id is never read. The caller closes what is left.
        self.status = {root: os.open(f"/proc/{root}/status", os.O_RDONLY)}
        self._next_look = 0.0

    def sample(self) -> None:
        now = time.perf_counter()
        if now >= self._next_look:
            self._look_for_children()
            # One file per thread has to be read for this, so keep it below a fiftieth of a CPU however many there are.
            self._next_look = now + max(10 * TICK, 50 * (time.perf_counter() - now))
        self.peak = max(self.peak, self.living_threads())

    def living_threads(self) -> int:
        return sum(self._threads_of(pid) for pid in list(self.status))

    def signal(self, signum: int) -> None:
        self._look_for_children()
        for pid in list(self.status):
            if self._threads_of(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)

    def _threads_of(self, pid: int) -> int:
        try:
            text = os.pread(self.status[pid], 4096, 0)
        except ProcessLookupError:
            os.close(self.status.pop(pid))
            return 0
        return 0 if b"(zombie)" in text else int(text.partition(b"\nThreads:")[2].split(maxsplit=1)[0])

    def _look_for_children(self) -> None:
        waiting = list(self.status)
        while waiting:
            tasks = f"/proc/{waiting.pop()}/task"
            with contextlib.suppress(OSError):
                for task in os.listdir(tasks):
                    with contextlib.suppress(OSError), open(f"{tasks}/{task}/children", "rb") as file:
                        found = [pid for pid in map(int, file.read().split()) if pid not in self.status]
                        waiting += found
                        for pid in found:
                            self.status[pid] = os.open(f"/proc/{pid}/status", os.O_RDONLY)


def measure(command: list[str], *, timeout: float | None, out: IO[bytes], err: IO[bytes]) -> tuple[Sample, int]:
    """Run it once; returns its numbers and its exit code (0 if it was given up)."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
    tree, end = Tree(process.pid), file_of_end(process)
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            wall = time.perf_counter() - started
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait for it again
                cpu, switches = usage.ru_utime + usage.ru_stime, usage.ru_nvcsw + usage.ru_nivcsw
                return Sample(wall, cpu, switches, tree.peak, True), process.returncode
            if timeout is not None and wall > timeout:
                return Sample(wall, None, None, tree.peak, False), 0
            tree.sample()
            select.select(end, [], [], TICK)
    finally:
        if process.returncode is None:
            stop(process, tree)
        for file in (*end, *tree.status.values()):
            os.close(file)


def file_of_end(process: subprocess.Popen[bytes]) -> list[int]:
    """Is readable when the process has ended; to wait on, for a wall time that is not rounded up to a tick."""
    try:
        return [os.pidfd_open(process.pid)]
    except OSError:  # before Linux 5.3, or forbidden in a container
        return []


def stop(process: subprocess.Popen[bytes], tree: Tree) -> None:
    """End the process, its descendants and its group; asked first, for multiprocessing's tracker to clear up."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        tree.signal(signum)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        deadline = time.perf_counter() + GRACE
        while (process.poll() is None or tree.living_threads()) and time.perf_counter() < deadline:
            time.sleep(TICK)
    process.wait()


def tail_of(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * TAIL))
    return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL:])


@contextlib.contextmanager
def signals_end_the_run_first() -> Iterator[None]:
    """Die of SIGINT, SIGTERM or SIGHUP only after the run: it has a session of its own, where they do not reach it."""
    handled = [s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]

    def raise_stopped(signum: int, frame: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)  # the clearing up that now begins takes GRACE at most
        raise Stopped(signum)

    for each in handled:
        signal.signal(each, raise_stopped)
    try:
        yield
    except Stopped as stopped:
        progress("")
        signal.signal(stopped.args[0], signal.SIG_DFL)
        os.kill(os.getpid(), stopped.args[0])


def compare(program: list[str], *, rounds: int, slots: int | None, timeout: float | None, json_path: str | None) -> int:
    """Print the table for [file, *args] or ["-m", module, *args]; returns the exit code of the command."""
    python = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
    under_arena = ["-m", "composable_threads", *([] if slots is None else ["-p", str(slots)])]
    commands = {"stock": [*python, *program], "composable": [*python, *under_arena, *program]}
    runs: dict[str, list[Sample]] = {kind: [] for kind in commands}
    outputs = set()
    with signals_end_the_run_first():
        for number, kind in itertools.product(range(1, rounds + 1), commands):
            if runs[kind] and not runs[kind][-1].finished:
                continue  # it would only take as long again
            progress(f"round {number} of {rounds}: {kind}")
            # Files, not pipes: nobody has to read along, and a process that a run leaves behind holds nothing up.
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                sample, code = measure(commands[kind], timeout=timeout, out=out, err=err)
                if code != 0:
                    code = code if code > 0 else 128 - code  # by a signal: what a shell makes of it
                    progress("")
                    say(f"the {kind} run of round {number} ended with exit code {code}; its last lines:")
                    print(tail_of(err) or tail_of(out), file=sys.stderr)
                    return code
                if number == 1 and sample.finished:
                    out.seek(0)
                    outputs.add(hashlib.sha256(out.read()).digest())
            runs[kind].append(sample)
    progress("")
    print(table(runs["stock"], runs["composable"], timeout=timeout))
    if len(outputs) > 1:
        print("note: stock and composable wrote different things to stdout in round 1 (it may be the times they print)")
    if json_path is not None:
        facts = {"program": program, "python": sys.version, "slots": slots, "rounds": rounds, "timeout": timeout}
        with open(json_path, "w", encoding="utf-8") as file:
            json.dump({**facts, **{kind: [asdict(run) for run in runs[kind]] for kind in runs}}, file, indent=2)
    if not runs["composable"][-1].finished:
        say(f"the composable run did not finish within {timeout:g} s")
        return 1
    return 0


def say(text: str) -> None:
    print(f"python -m composable_threads compare: {text}", file=sys.stderr)


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def table(stock: list[Sample], composable: list[Sample], *, timeout: float | None) -> str:
    ratio_row = ["ratio", *(ratio(stock, composable, column, timeout=timeout) for column in COLUMNS)]
    rows = [["", *(title for title, _ in COLUMNS.values())], ratio_row]
    for kind, runs in (("stock", stock), ("composable", composable)):
        rows.insert(-1, [kind, *(cell(runs, column, timeout=timeout) for column in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)) for row in rows]
    return "\n".join(f"{row[0]:{widths[0]}}  {line}" for row, line in zip(rows, lines, strict=True))


def cell(runs: list[Sample], column: str, *, timeout: float | None) -> str:
    if not runs[-1].finished and column != "peak_threads":
        return f"> {timeout:g} s (not finished)" if column == "wall_seconds" else "-"
    return medians([getattr(run, column) for run in runs], COLUMNS[column][1], spread=column == "wall_seconds")


def ratio(stock: list[Sample], composable: list[Sample], column: str, *, timeout: float | None) -> str:
    """Composable divided by stock, round by round; where stock was given up, what it is below."""
    wall = column == "wall_seconds"
    if stock[-1].finished and composable[-1].finished:
        above, below = ([getattr(run, column) for run in runs] for runs in (composable, stock))
        if all(below):
            return medians([a / b for a, b in zip(above, below, strict=True)], "{:.2f}", spread=wall)
    elif wall and timeout is not None and composable[-1].finished:
        return f"< {statistics.median(run.wall_seconds for run in composable) / timeout:.2g}"
    return "-"


def medians(values: list[float], form: str, *, spread: bool) -> str:
    text = form.format(statistics.median(values))
    return f"{text} ({form.format(min(values))}..{form.format(max(values))})" if spread else text
