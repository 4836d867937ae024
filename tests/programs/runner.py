"""Runs programs in fresh processes, many in each; what fails is run again alone and made smaller."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Flaky

from .grammar import Node, programs, walk

SIZES = (1, 2, 3, 4, 8)
PROGRAM_SECONDS = 60  # after which a program hangs
BATCH = 60
ALONE_TIMES = 5  # a program that fails now and then
SHRINK_SECONDS = 300

_SETTINGS: dict[str, Any] = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
_TESTS = str(Path(__file__).parents[1])
_CLEARED = ("COMPOSABLE_", "NUMBA_", "OMP_", "DASK_")


@dataclass
class Failure:
    slots: int
    program: Node
    why: str
    alone: str = "not tried"


@dataclass
class Figures:
    programs: int = 0
    nodes: int = 0
    processes: int = 0
    seconds: float = 0
    failures: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.programs} programs, {self.nodes} nodes, {self.processes} processes, "
            f"{len(self.failures)} failures, {self.seconds:.0f} s"
        )


class Process:
    """A fresh process in which one batch after the other can run."""

    def __init__(self, slots: int):
        self._slots = slots
        self._errors = tempfile.NamedTemporaryFile("a")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(_CLEARED)}
        variables |= {"PYTHONPATH": _TESTS, "NUMBA_THREADING_LAYER": "composable", "NUMBA_NUM_THREADS": "8"}
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "programs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=tempfile.gettempdir(),
            env=variables,
            start_new_session=True,
        )
        self.usable = True
        threading.Thread(target=self._end_orphans, daemon=True).start()

    def _end_orphans(self) -> None:
        # A child that was forked and hangs has the output open, for which run() would wait.
        self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def run(self, batch: Sequence[Node], times: int = 1) -> tuple[dict[int, str], int]:
        """What went wrong, by the program's number (-1: after all of them), and how many ended."""
        assert self._process.stdin and self._process.stdout
        said = self._said()
        self._process.stdin.write(f"{(self._slots, PROGRAM_SECONDS, times, list(batch))!r}\n")
        self._process.stdin.flush()
        wrong: dict[int, str] = {}
        begun = -1
        # Every program has a watchdog in the process, so the output ends in any case.
        for line in self._process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "begin":
                begun = int(rest)
            elif word == "failed":
                number, _, text = rest.partition(" ")
                wrong[int(number)] = ast.literal_eval(text)
            elif word == "left":
                wrong[-1] = ast.literal_eval(rest)
            elif word == "end":
                if text := self._said()[len(said) :]:
                    wrong.setdefault(-1, f"on stderr:\n{text}")
                return wrong, len(batch)
        self.usable = False
        code = self._process.wait()
        wrong[begun] = f"the process ended with {code}\n{self._said()[len(said) :]}"
        return wrong, begun + 1

    def _said(self) -> str:
        return Path(self._errors.name).read_text(errors="backslashreplace")

    def close(self) -> None:
        for end in (self._process.stdin, self._process.stdout):
            end.close()  # type: ignore[union-attr]
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._errors.close()


def generate(count: int, number: int) -> list[Node]:
    """`count` programs; the same for the same seed `number` and version of hypothesis."""
    made: list[Node] = []

    @seed(number)
    @settings(max_examples=count, phases=[Phase.generate], **_SETTINGS)
    @given(programs())
    def collect(program: Node) -> None:
        made.append(program)

    collect()
    return made


def run(made: Sequence[Node], sizes: Sequence[int], *, batch: int = BATCH, say: bool = False) -> Figures:
    """Run all of `made`, each in an arena of one of `sizes`; two processes at once."""
    figures = Figures(len(made), sum(len(walk(program)) for program in made))
    begun = time.monotonic()
    jobs = [
        (slots, part[start : start + batch])
        for place, slots in enumerate(sizes)
        for part in [made[place :: len(sizes)]]
        for start in range(0, len(part), batch)
    ]
    with ThreadPoolExecutor(2) as pool:
        for number, (processes, failures) in enumerate(pool.map(lambda job: _run_batch(*job), jobs), 1):
            figures.processes += processes
            figures.failures += failures
            if say:
                print(f"{number} of {len(jobs)} batches, {len(figures.failures)} failures", flush=True)
                for failure in failures:
                    print(f"--- P = {failure.slots}: {failure.program!r}\n{failure.why}", flush=True)
    figures.seconds = time.monotonic() - begun
    return figures


def _run_batch(slots: int, batch: Sequence[Node]) -> tuple[int, list[Failure]]:
    processes, failures, rest = 0, [], list(batch)
    while rest:
        process = Process(slots)
        processes += 1
        wrong, ended = process.run(rest)
        process.close()
        for number, why in wrong.items():
            # Something was left after all of them: whose it was is found by running each alone.
            failures += _blamed(slots, rest[:ended], why) if number < 0 else [Failure(slots, rest[number], why)]
        rest = rest[max(ended, 1) :]
    return processes, failures


def _blamed(slots: int, batch: Sequence[Node], why: str) -> list[Failure]:
    found = []
    process = Process(slots)
    for program in batch:
        if not process.usable:
            process.close()
            process = Process(slots)
        wrong, _ = process.run([program], ALONE_TIMES)
        if wrong:
            found.append(Failure(slots, program, f"{why}\nalone: {next(iter(wrong.values()))}"))
    process.close()
    return found or [Failure(slots, ("batch", {}, list(batch)), why)]


def shrink(failure: Failure, number: int, count: int) -> Failure:
    """A smaller program that fails too, found by hypothesis from the same seed; else the failure."""
    deadline = time.monotonic() + SHRINK_SECONDS
    known = repr(failure.program)
    best: Failure | None = None
    process = Process(failure.slots)
    reached = False

    def fails(program: Node) -> str | None:
        nonlocal process
        if not process.usable:
            process.close()
            process = Process(failure.slots)
        wrong, _ = process.run([program], ALONE_TIMES)
        return next(iter(wrong.values()), None)

    @seed(number)
    @settings(max_examples=count, phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False, **_SETTINGS)
    @given(programs())
    def attempt(program: Node) -> None:
        nonlocal best, reached
        reached = reached or repr(program) == known
        if not reached or time.monotonic() > deadline:
            return
        why = fails(program)
        if why is not None:
            if best is None or len(repr(program)) <= len(repr(best.program)):
                best = Failure(failure.slots, program, failure.why, why)
            raise AssertionError(why)

    with contextlib.suppress(AssertionError, Flaky):
        attempt()
    process.close()
    if best is None:
        failure.alone = f"passed {ALONE_TIMES} times alone"
    return best or failure


def report(figures: Figures, number: int) -> Iterator[str]:
    for failure in figures.failures:
        yield f"--- P = {failure.slots}\n{failure.why}\n--- alone: {failure.alone}"
        yield f"{(failure.slots, failure.program)!r},"
    yield f"seed {number}: {figures}"
