"""The numbers of a timeline."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from .model import COMPUTING, TITLES, WAITS, Timeline, seconds_busy, slots_of


class Summary(dict[str, Any]):
    """A dict that prints as sentences; ``repr`` in a terminal, a table in a notebook."""

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"

    def lines(self) -> list[str]:
        busy = self["busy_share"]
        lines = [
            f"{self['seconds']:.3f} s on {self['slots']} slots; {self['unused_share']:.0%} of their time unused",
            "busy:  " + ", ".join(f"slot {number} {share:.0%}" for number, share in enumerate(busy)),
        ]
        for kind in COMPUTING:
            if self["count"][kind]:
                lines.append(f"{self['seconds_by_kind'][kind]:9.3f} s  {self['count'][kind]:9,}  {TITLES[kind]}")
        for reason, seconds in self["waiting_seconds"].items():
            if seconds > 0:
                lines.append(f"{seconds:9.3f} s             waited {reason}, in the middle of one of these")
        runnable = self["runnable"]
        if runnable is None:
            lines.append("threads ready to run: not known, the kernel does not tell")
        else:
            lines.append(
                f"threads ready to run: {runnable['mean']:.2f} on average, {runnable['most']:.1f} at most; "
                f"beyond P: {runnable['beyond_slots']:.2f} on average"
            )
        switches = self["context_switches"]
        if switches is not None:
            lines.append(f"context switches: {switches['voluntary']:,} voluntary, {switches['forced']:,} forced")
        if self["dropped"]:
            lines.append(
                f"NOT COMPLETE: {self['dropped']:,} spans did not fit and were dropped, the first at "
                f"{self['complete_until']:.3f} s; trace(limit=...) keeps more"
            )
        return lines


def summarise(timeline: Timeline) -> Summary:
    """See ``Trace.summary``."""
    slots = slots_of(timeline)
    seconds = max(timeline.seconds, 1e-9)
    busy = [seconds_busy(pieces) for pieces in slots]
    by_kind = dict.fromkeys(COMPUTING, 0.0)
    for pieces in slots:
        for piece in pieces:
            by_kind[piece.span.kind] += piece.end - piece.begin
    count = dict.fromkeys(COMPUTING, 0)
    waits = dict.fromkeys(WAITS, 0.0)
    for thread in timeline.threads:
        inside = _Inside([(span.begin, span.end) for span in thread.spans if span.kind in COMPUTING])
        for span in thread.spans:
            if span.kind in count:
                count[span.kind] += span.count
            elif span.kind == "wait" and span.begin in inside:
                waits[span.name] += span.end - span.begin
    return Summary(
        seconds=timeline.seconds,
        slots=timeline.slots,
        busy_share=[time / seconds for time in busy],
        unused_share=max(0.0, 1 - sum(busy) / (timeline.slots * seconds)),
        seconds_by_kind=by_kind,
        count=count,
        waiting_seconds=waits,
        runnable=_runnable(timeline),
        context_switches=timeline.facts.get("context_switches"),
        cpu_seconds=timeline.facts.get("cpu_seconds"),
        threads=len(timeline.threads),
        dropped=timeline.dropped,
        complete_until=timeline.complete_until,
    )


class _Inside:
    """Whether a time is within one of some intervals, asked in rising order or not."""

    def __init__(self, intervals: list[tuple[float, float]]):
        from bisect import bisect_right

        self._bisect = bisect_right
        self._begins: list[float] = []
        self._ends: list[float] = []
        for begin, end in sorted(intervals):
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def __contains__(self, time: object) -> bool:
        if not isinstance(time, (int, float)):
            return False
        place = self._bisect(self._begins, time) - 1
        return place >= 0 and time < self._ends[place]


def _runnable(timeline: Timeline) -> dict[str, Any] | None:
    samples = timeline.runnable
    whole = samples[-1].at - samples[0].at if len(samples) > 1 else 0.0
    if whole <= 0:
        return None
    mean = beyond = most = 0.0
    for before, now in pairwise(samples):
        ready, time = now.running + now.waiting, now.at - before.at
        mean += ready * time / whole
        beyond += max(0.0, ready - timeline.slots) * time / whole
        most = max(most, ready)
    return {
        "mean": mean,
        "beyond_slots": beyond,
        "most": most,
        "threads": max(sample.threads for sample in samples),
    }
