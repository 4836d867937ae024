"""``trace()``: records what the arena does, and tells it."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from .. import _native
from .labels import name_of_label, names_of_regions
from .model import KINDS, WAITS, Runnable, Span, Thread, Timeline
from .summary import Summary, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMIT = 1_000_000  # spans; 32 bytes each


class Trace:
    """A recording of the arena: what ran on which thread and when.

    Made by `trace`. Recording goes on from ``start()`` to ``stop()``, or for the extent of a ``with``; then `timeline` has
    what was recorded, and the methods tell it. A trace is recorded once.

    In a child that was forked meanwhile nothing is recorded; ``stop()`` there leaves an empty timeline.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        if isinstance(limit, bool) or not hasattr(limit, "__index__"):
            raise TypeError(f"limit must be a whole number of spans, not {limit!r}")
        if not 1 <= limit < 1 << 31:
            raise ValueError(f"limit must be from 1 to {(1 << 31) - 1} spans, not {limit}")
        self._limit = limit.__index__()
        self._state = "new"
        self._process = 0
        self._timeline: Timeline | None = None
        self._usage: tuple[float, int, int] = (0.0, 0, 0)

    def start(self) -> Trace:
        """Begin to record. Raises RuntimeError if this trace was started before or another one is being recorded."""
        if self._state != "new":
            raise RuntimeError("a trace is recorded once; make another one")
        slots = _native.slots()  # a bad COMPOSABLE_NUM_THREADS is told here
        try:
            _native.trace_start(self._limit)
        except RuntimeError as error:
            raise RuntimeError(str(error)) from None
        self._state, self._process, self._slots = "on", os.getpid(), slots
        self._usage = _usage()
        return self

    def stop(self) -> Trace:
        """End the recording. What still runs then is not in it. Calling it again does nothing."""
        if self._state != "on":
            return self
        self._state = "over"
        if self._process != os.getpid():
            self._timeline = Timeline(self._slots, 0.0, [], facts={"note": "recorded in the parent of this process"})
            return self
        _native.trace_stop()
        usage = _usage()
        cpu, voluntary, forced = (now - before for now, before in zip(usage, self._usage, strict=True))
        self._timeline = _read(_native.trace_collect(), self._slots)
        self._timeline.facts.update(
            cpu_seconds=cpu, context_switches={"voluntary": voluntary, "forced": forced}, process=os.getpid()
        )
        _native.trace_forget()
        return self

    def __enter__(self) -> Trace:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def timeline(self) -> Timeline:
        """What was recorded. Raises RuntimeError before ``stop()``."""
        if self._timeline is None:
            raise RuntimeError(
                "nothing to tell yet: the trace is " + {"new": "not started", "on": "being recorded"}[self._state]
            )
        return self._timeline

    def summary(self) -> Summary:
        """The numbers of it, as a dict that prints as sentences.

        Returns
        -------
        dict
            ``seconds``; ``slots``: P; ``busy_share``: for each slot, the share of the time in which something computed there (more
            than P entries where more threads than P computed); ``unused_share``: of all P slots' time; ``seconds_by_kind`` and
            ``count``: by ``task``, ``node``, ``region`` and ``runner`` (a helper's part in a region); ``waiting_seconds``: in the middle
            of those, by what was waited for; ``runnable``: threads of the process that ran or were ready to, by the kernel's
            counters: ``mean``, ``most``, ``beyond_slots`` (oversubscription: how many more than P, on average) and ``threads`` alive, or
            None where the kernel does not tell; ``context_switches``: ``voluntary`` and ``forced``; ``cpu_seconds``; ``threads`` that
            were recorded; ``dropped``: spans that did not fit, and ``complete_until``, when the first of them began.
        """
        return summarise(self.timeline)

    def save(self, file: str | os.PathLike[str] | IO[str]) -> None:
        """Write it in Chrome's trace event format, for https://ui.perfetto.dev and chrome://tracing, to a file or its path."""
        from .chrome import write

        write(self.timeline, file)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it with matplotlib: a row for each slot, a colour for each kind, what is left white is unused time.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from .plot import plot

        return plot(self.timeline, ax)

    def __repr__(self) -> str:
        if self._timeline is None:
            return f"<composable_threads.Trace, {'not started' if self._state == 'new' else 'being recorded'}>"
        return "\n".join(["<composable_threads.Trace>", *self.summary().lines()])

    def _repr_html_(self) -> str | None:
        if self._timeline is None:
            return None
        from .svg import picture

        return picture(self._timeline)


def trace(*, limit: int = LIMIT) -> Trace:
    """Record what the arena does: ``with composable_threads.trace() as t: ...``, then ``t.summary()``, ``t.plot()``, ``t.save()``.

    Regions, tasks and nodes of graphs are recorded with what ran in them, waits in their middle, and changes of BLAS
    widths. One trace is recorded at a time in a process.

    Parameters
    ----------
    limit : int, optional
        At most so many spans, of 32 bytes each, are kept over all threads; what comes later is counted as dropped. Small
        regions that follow each other on a thread are one span.

    Raises
    ------
    TypeError, ValueError
        If `limit` is not a whole number of at least 1.
    RuntimeError
        From ``with`` and ``start()``: if another trace is being recorded.
    """
    return Trace(limit)


def _usage() -> tuple[float, int, int]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_nvcsw, usage.ru_nivcsw


def _read(found: Mapping[str, Any], slots: int) -> Timeline:
    """A timeline of what the native module collected."""
    words = [memoryview(thread["spans"]).cast("Q") for thread in found["threads"]]
    kinds = range(len(KINDS))
    regions = {
        values[at + 2]
        for values in words
        for at in range(0, len(values), 4)
        if KINDS[values[at + 3] & 0xFF] in ("region", "runner")
    }
    region_names = names_of_regions(regions)
    labels = {address: name_of_label(label) for address, label in found["labels"].items()}
    libraries = {address: os.path.basename(path) for address, path in found["libraries"].items()}
    threads = []
    for values, facts in zip(words, found["threads"], strict=True):
        thread = Thread(facts["tid"], facts["name"], facts["worker"], [], facts["dropped"], facts["dropped_at"])
        for at in range(0, len(values), 4):
            begin, end, what, about = values[at : at + 4]
            code = about & 0xFF
            if code not in kinds:
                continue
            kind = KINDS[code]
            if kind in ("task", "node"):
                name = labels.get(what, kind)
            elif kind in ("region", "runner"):
                name = region_names[what]
            elif kind == "wait":
                name = WAITS[what]
            elif kind == "width":
                name = libraries.get(what, "BLAS")
            else:
                name = str(what)
            thread.spans.append(Span(kind, name, begin * 1e-9, end * 1e-9, about >> 32, about >> 8 & 0xFFFF))
        threads.append(thread)
    runnable = [Runnable(*sample) for sample in found["runnable"]]
    return Timeline(slots, found["seconds"], threads, runnable)


class RecordedRun:
    """Records from now on until `finish`, which writes the trace to `path` if the process is still the same one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._process = os.getpid()
        self._trace = Trace().start()

    def finish(self) -> None:
        if self._process != os.getpid():
            return
        self._trace.stop()
        self._trace.timeline.facts["program"] = sys.argv[:1]
        try:
            self._trace.save(self._path)
        except OSError as error:
            told = f"python -m composable_threads: cannot write the trace: {error}\n"
        else:
            dropped, until = self._trace.timeline.dropped, self._trace.timeline.complete_until
            told = f"python -m composable_threads: the trace ends at {until:.3f} s: {dropped:,} spans did not fit\n"
            if not dropped:
                return
        if sys.stderr is not None:
            sys.stderr.write(told)
