"""What a timeline is made of, and how spans become slots.

A *span* is something that ran on a thread from begin to end; spans of a thread nest. What a thread computes at a moment
is the innermost span then, unless that is a wait. A *slot* is one of the P places in which the arena computes: it has
no thread of its own, so slots are found afterwards. A thread that computes without a break occupies one, the one it had
before if that is free. More than P are occupied where more threads than P computed, which is drawn as it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

KINDS = ("task", "node", "region", "runner", "wait", "width", "taken")  # the order of native/trace.h
COMPUTING = ("task", "node", "region", "runner")
WAITS = ("for a permit", "for tasks", "for the region's last blocks", "blocking()")
TITLES = {
    "task": "tasks (Joblib, executors)",
    "node": "nodes of Dask graphs",
    "region": "parallel regions, in their caller",
    "runner": "parallel regions, in helpers",
}

# A permit that goes from one thread to the next seems to be in both hands for so long, in seconds.
HAND_OVER = 50e-6


class Span(NamedTuple):
    """One thing that ran. Times in seconds since the trace began."""

    kind: str  # of KINDS
    name: str
    begin: float
    end: float
    count: int  # type: ignore[assignment]  # regions in it, where small ones that followed each other are one; for a width: threads
    width: int  # how many threads a BLAS or OpenMP call could use on this thread

    @property
    def title(self) -> str:
        return f"{self.name} x {self.count:,}" if self.kind == "region" and self.count > 1 else self.name


class Piece(NamedTuple):
    """A stretch of one thread, or slot, in which it computed one thing."""

    begin: float
    end: float
    span: Span


class Runnable(NamedTuple):
    """What the kernel says of the time since the entry before: threads on average."""

    at: float
    running: float
    waiting: float  # ready, without a CPU
    threads: int


@dataclass
class Thread:
    tid: int
    name: str
    worker: bool  # of the arena's
    spans: list[Span] = field(default_factory=list)
    dropped: int = 0  # spans, for want of memory
    dropped_at: float = 0.0  # the first of them


@dataclass
class Timeline:
    """A finished recording."""

    slots: int
    seconds: float
    threads: list[Thread]
    runnable: list[Runnable] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)  # cpu_seconds, context switches, program, ...

    @property
    def dropped(self) -> int:
        return sum(thread.dropped for thread in self.threads)

    @property
    def complete_until(self) -> float:
        """Until when nothing was dropped, in seconds."""
        return min((thread.dropped_at for thread in self.threads if thread.dropped), default=self.seconds)


def pieces_of(thread: Thread, sleeps: Sequence[float] = ()) -> list[Piece]:
    """What the thread computed, in order, without overlap. From each of `sleeps` on, up to the end of the outermost
    span there, it slept."""
    spans = [span for span in thread.spans if span.kind in COMPUTING or span.kind == "wait"]
    spans.sort(key=lambda span: (span.begin, -span.end))
    found: list[Piece] = []
    open_spans: list[tuple[float, Span]] = []  # with their ends, which never exceed that of what is around them
    now = 0.0

    def upto(time: float) -> None:
        nonlocal now
        if open_spans and time > now and open_spans[-1][1].kind != "wait":
            found.append(Piece(now, time, open_spans[-1][1]))
        now = max(now, time)

    def close_until(time: float) -> None:
        while open_spans and open_spans[-1][0] <= time:
            upto(open_spans[-1][0])
            open_spans.pop()

    asleep = sorted(sleeps, reverse=True)
    for span in spans:
        close_until(span.begin)
        upto(span.begin)
        end = min(span.end, open_spans[-1][0]) if open_spans else span.end
        open_spans.append((end, span))
    close_until(float("inf"))
    if not asleep:
        return found
    outermost = [(span.begin, span.end) for span in spans if span.kind != "wait"]
    gaps = [(at, max((end for begin, end in outermost if begin <= at < end), default=at)) for at in asleep]
    return [piece for piece in found if not any(begin <= piece.begin < end for begin, end in gaps)]


def sleeps_of(timeline: Timeline) -> dict[int, list[float]]:
    """Thread id -> when it was found asleep in a task and lost its permit."""
    found: dict[int, list[float]] = {}
    for thread in timeline.threads:
        for span in thread.spans:
            if span.kind == "taken":
                found.setdefault(int(span.name), []).append(span.begin)
    return found


def slots_of(timeline: Timeline) -> list[list[Piece]]:
    """The pieces of each slot, at least P of them."""
    sleeps = sleeps_of(timeline)
    stays = []  # without a break on one thread: begin, thread, end, pieces
    for number, thread in enumerate(timeline.threads):
        for stay in _stays(pieces_of(thread, sleeps.get(thread.tid, ()))):
            stays.append((stay[0].begin, number, stay[-1].end, stay))
    stays.sort(key=lambda stay: stay[:2])
    lanes: list[list[Piece]] = [[] for _ in range(timeline.slots)]
    free = list(range(timeline.slots))
    heapq.heapify(free)
    busy: list[tuple[float, int]] = []  # until when, slot
    last: dict[int, int] = {}
    for begin, number, end, stay in stays:
        while busy and busy[0][0] <= begin + HAND_OVER:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = last.get(number, -1)
        if lane in free:
            free.remove(lane)
            heapq.heapify(free)
        elif free:
            lane = heapq.heappop(free)
        else:
            lane = len(lanes)
            lanes.append([])
        last[number] = lane
        lanes[lane] += stay
        heapq.heappush(busy, (end, lane))
    return lanes


def _stays(pieces: Iterable[Piece]) -> Iterable[list[Piece]]:
    stay: list[Piece] = []
    for piece in pieces:
        if stay and piece.begin - stay[-1].end > HAND_OVER:
            yield stay
            stay = []
        stay.append(piece)
    if stay:
        yield stay


def seconds_busy(pieces: Iterable[Piece]) -> float:
    return sum(piece.end - piece.begin for piece in pieces)
