"""Chrome's trace event format, which Perfetto and chrome://tracing read; written, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import IO, Any

from .model import KINDS, WAITS, Runnable, Span, Thread, Timeline

COUNTERS = "threads by the kernel's account"


def write(timeline: Timeline, file: str | os.PathLike[str] | IO[str]) -> None:
    """Write it to an open text file, or to a path."""
    if isinstance(file, (str, os.PathLike)):
        with open(file, "w", encoding="utf-8") as opened:
            write(timeline, opened)
        return
    # Piece by piece: as one string it would be several times the size of what was recorded.
    other = {
        "slots": timeline.slots,
        "seconds": timeline.seconds,
        "dropped": {
            str(thread.tid): [thread.dropped, thread.dropped_at] for thread in timeline.threads if thread.dropped
        },
        **timeline.facts,
    }
    file.write('{"displayTimeUnit": "ms",\n"otherData": ' + json.dumps(other) + ',\n"traceEvents": [\n')
    separator = ""
    for event in events(timeline):
        file.write(separator + json.dumps(event))
        separator = ",\n"
    file.write("\n]}\n")


def events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    process = timeline.facts.get("process", 1)
    yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"the arena, {timeline.slots} slots"}}
    for order, thread in enumerate(timeline.threads):
        about = {"ph": "M", "pid": process, "tid": thread.tid}
        yield {**about, "name": "thread_name", "args": {"name": thread.name}}
        yield {
            **about,
            "name": "thread_sort_index",
            "args": {"sort_index": order},
            "cat": "worker" if thread.worker else "",
        }
        for span in thread.spans:
            event: dict[str, Any] = {
                "name": span.name,
                "cat": span.kind,
                "ph": "X",
                "ts": round(span.begin * 1e6, 3),
                "pid": process,
                "tid": thread.tid,
            }
            if span.kind == "width":
                event.update(ph="C", name=f"width of {span.name}", args={"threads": span.count})
            elif span.kind == "taken":
                event.update(ph="i", s="p", name="permit taken", args={"of": int(span.name)})
            else:
                event["dur"] = round((span.end - span.begin) * 1e6, 3)
                event["args"] = {"width": span.width}
                if span.kind == "region":
                    event["args"]["regions"] = span.count
            yield event
        if thread.dropped:
            yield {
                "name": f"{thread.dropped:,} spans dropped from here on",
                "ph": "i",
                "s": "t",
                "ts": round(thread.dropped_at * 1e6, 3),
                "pid": process,
                "tid": thread.tid,
            }
    for sample in timeline.runnable:
        counts = {
            "running": round(sample.running, 3),
            "waiting for a CPU": round(sample.waiting, 3),
            "alive": sample.threads,
        }
        yield {"ph": "C", "name": COUNTERS, "pid": process, "ts": round(sample.at * 1e6, 3), "args": counts}


def read(path: str | os.PathLike[str]) -> Timeline:
    """A timeline from a file of `write`'s. Raises ValueError if it is another program's."""
    with open(path, encoding="utf-8") as file:
        whole = json.load(file)
    other = whole.get("otherData", {}) if isinstance(whole, dict) else {}
    if "slots" not in other or "seconds" not in other:
        raise ValueError(f"{os.fspath(path)!r} was not written by composable_threads")
    threads: dict[int, Thread] = {}
    runnable: list[Runnable] = []
    for event in whole["traceEvents"]:
        kind = event.get("cat")
        if event["name"] == COUNTERS:
            counts = event["args"]
            sample = (event["ts"] * 1e-6, counts["running"], counts["waiting for a CPU"], counts["alive"])
            runnable.append(Runnable(*sample))
        elif event["name"] == "thread_name":
            dropped, at = other["dropped"].get(str(event["tid"]), (0, 0.0))
            threads[event["tid"]] = Thread(event["tid"], event["args"]["name"], False, [], dropped, at)
        elif event["name"] == "thread_sort_index":
            threads[event["tid"]].worker = kind == "worker"
        elif kind in KINDS:
            args = event.get("args", {})
            begin = event["ts"] * 1e-6
            name, count, width = event["name"], 1, args.get("width", 0)
            if kind == "width":
                name, count = name.removeprefix("width of "), args["threads"]
            elif kind == "taken":
                name = str(args["of"])
            elif kind == "region":
                count = args["regions"]
            elif kind == "wait" and name not in WAITS:
                raise ValueError(f"{os.fspath(path)!r} has a wait of another version: {name!r}")
            end = begin + event.get("dur", 0) * 1e-6
            threads[event["tid"]].spans.append(Span(kind, name, begin, end, count, width))
    facts = {key: value for key, value in other.items() if key not in ("slots", "seconds", "dropped")}
    return Timeline(other["slots"], other["seconds"], list(threads.values()), runnable, facts)
