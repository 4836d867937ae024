"""Runs peers alternately, each sample in a fresh process, and says how they compare.

A benchmark is a `Question`: programs to run (`cases`) and ways to run them (`peers`). One *sample* is one process: it
warms up, measures a few rounds itself and prints one JSON line with medians (see ``programs/measure.py``). Samples of
all peers of a case are taken in turn, so that noise of the machine meets all of them; ratios are taken within a turn.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
OURS = "composable"
WIDTHS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Peer:
    """One way to run a case: under which name, environment and launcher (arguments between python and the program)."""

    name: str
    env: dict[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()  # arguments after the case's own
    needs: str | None = None  # a module without which it cannot run; then it is left out, and said so
    cannot: dict[str, str] = field(default_factory=dict)  # cases it is left out of, with what it would do there

    def runs_here(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


@dataclass(frozen=True)
class Case:
    """One program with its arguments: those of the case, the peer's, then those that come `after`."""

    name: str
    program: str
    args: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """What a benchmark asks, of whom."""

    name: str
    text: str
    cases: tuple[Case, ...]
    peers: tuple[Peer, ...]
    timeout: float = 60.0  # seconds for one sample; a peer that needs more is reported as such
    baseline: str = OURS
    serial: str | None = None  # the peer whose CPU time is the work itself; then efficiency is told
    slots: int = 1  # P, for efficiency


@dataclass
class Result:
    """Samples of one peer on one case; a sample is None where the time limit ended it."""

    case: str
    peer: str
    samples: list[dict[str, Any] | None] = field(default_factory=list)

    def median(self, key: str) -> float | None:
        values = [sample[key] for sample in self.samples if sample is not None]
        return statistics.median(values) if values else None


class BenchmarkError(RuntimeError):
    """A program failed; nothing was measured."""


def tbb_on_path() -> dict[str, str]:
    """Environment in which stock Numba finds pip's libtbb, which it does not by itself."""
    return {"LD_LIBRARY_PATH": os.path.join(sys.prefix, "lib")}


def pinned(**more: str) -> dict[str, str]:
    """Every library at one thread: the usual cure by hand."""
    return dict.fromkeys(WIDTHS, "1") | more


def take_sample(case: Case, peer: Peer, timeout: float) -> dict[str, Any] | None:
    """Run one fresh process; None if it exceeds `timeout` seconds. Raises BenchmarkError if it fails."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "COMPOSABLE_"))}
    for name in WIDTHS:
        env.pop(name, None)
    env |= {"PYTHONPATH": str(PROGRAMS)} | peer.env  # `python -m tbb` does not put the program's folder on the path
    command = [sys.executable, *peer.launcher, str(PROGRAMS / case.program), *case.args, *peer.extra, *case.after]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode != 0:
        raise BenchmarkError(f"{case.name} as {peer.name}: exit code {process.returncode}\n{err[-2000:]}")
    return json.loads(out.splitlines()[-1])


def run(question: Question, rounds: int, progress: Any = None) -> list[Result]:
    """Measure every case and peer `rounds` times, peers in turn. A peer that timed out once is not tried again."""
    results = []
    for case in question.cases:
        of_case = [Result(case.name, peer.name) for peer in question.peers]
        for _ in range(rounds):
            for peer, result in zip(question.peers, of_case, strict=True):
                if not peer.runs_here() or case.name in peer.cannot or (result.samples and result.samples[-1] is None):
                    result.samples.append(None)
                else:
                    result.samples.append(take_sample(case, peer, question.timeout))
                if progress is not None:
                    progress.update()
        results += of_case
    return results


def ratios(result: Result, ours: Result) -> list[float]:
    """`result`'s wall over ours, turn by turn; above 1: we are faster."""
    return [
        theirs["wall_s"] / own["wall_s"]
        for theirs, own in zip(result.samples, ours.samples, strict=True)
        if theirs is not None and own is not None
    ]


def table(question: Question, results: Sequence[Result]) -> str:
    """A text table: one row per case and peer."""
    header = ("case", "peer", "wall", "wall / ours (spread)", "CPU", "switches", "threads")
    if question.serial is not None:
        header += ("efficiency",)
    rows = [header]
    by_case: dict[str, list[Result]] = {}
    for result in results:
        by_case.setdefault(result.case, []).append(result)
    for case, of_case in by_case.items():
        ours = next(result for result in of_case if result.peer == question.baseline)
        for result in of_case:
            row = (case, result.peer, *_cells(result, ours, question))
            if question.serial is not None:
                serial = next(other for other in of_case if other.peer == question.serial)
                row += (_efficiency(result, serial, question.slots),)
            rows.append(row)
            case = ""  # noqa: PLW2901  # named in its first row
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([f"{question.name}: {question.text}", *lines])


def _cells(result: Result, ours: Result, question: Question) -> tuple[str, ...]:
    wall = result.median("wall_s")
    if wall is None:
        peer = next(peer for peer in question.peers if peer.name == result.peer)
        if not peer.runs_here():
            return ("", f"needs {peer.needs}", "", "", "")
        if result.case in peer.cannot:
            return ("", peer.cannot[result.case], "", "", "")
        return (f"> {question.timeout:.0f} s", "not finished", "", "", "")
    compared = ratios(result, ours)
    ratio = ""
    if result is not ours and compared:
        ratio = f"{statistics.median(compared):.2f} ({min(compared):.2f}..{max(compared):.2f})"
    return (
        seconds(wall),
        ratio,
        seconds(result.median("cpu_s")),
        f"{result.median('switches'):,.0f}",
        f"{result.median('threads'):.0f}",
    )


def _efficiency(result: Result, serial: Result, slots: int) -> str:
    work, wall = serial.median("cpu_s"), result.median("wall_s")
    if result is serial or work is None or wall is None:
        return ""
    return f"{work / (slots * wall):.2f}"


def seconds(value: float | None) -> str:
    """A duration with a unit that suits it."""
    if value is None:
        return ""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def as_json(question: Question, results: Iterable[Result]) -> dict[str, Any]:
    """Raw samples with what is needed to read them later."""
    import importlib.metadata
    import platform

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    packages = ("composable-threads", "numba", "joblib", "dask", "numpy", "scipy", "scikit-learn", "tbb")
    return {
        "question": question.name,
        "text": question.text,
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "processor": platform.machine(),
            "system": platform.platform(),
        },
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "results": [{"case": result.case, "peer": result.peer, "samples": result.samples} for result in results],
    }
