"""Traces hold what ran, by name, on slots of which no more than P are busy at once; they can be saved, read, drawn and told."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import composable_threads
import pytest
from composable_threads import _native
from composable_threads.timeline import chrome
from composable_threads.timeline.model import Runnable, Span, Thread, Timeline, pieces_of, seconds_busy, slots_of
from composable_threads.timeline.summary import summarise
from composable_threads.timeline.svg import picture
from fresh import check_fresh

# `spans(t, kind)`: names and how many, of one kind.
START = """
import collections, json, threading, time
import composable_threads as ct
from composable_threads import _native
_native.configure(2)

def spans(t, kind):
    return collections.Counter(s.name for thread in t.timeline.threads for s in thread.spans if s.kind == kind)
"""


def run(code: str, **env: str) -> str:
    return check_fresh(START + code, env=env).strip()


def test_joblib_tasks_have_their_function_and_call_site() -> None:
    code = """
import joblib
def work(i): return i
with joblib.parallel_config("composable"):
    with ct.trace() as t:
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(work)(i) for i in range(50)) == list(range(50))
        joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(abs)(i) for i in range(7))
found = spans(t, "task")
assert list(found.values()) == [50, 7], found
assert [name.partition(",")[0] for name in found] == ["work", "abs"], found
assert all(", Parallel at <fresh>:" in name for name in found), found
assert t.summary()["count"]["task"] == 57
"""
    run(code)


def test_nodes_have_their_keys() -> None:
    code = """
import dask
from composable_threads.dask_backend import get
graph = {("a", i): (pow, i, 2) for i in range(30)} | {"total": (sum, [("a", i) for i in range(30)])}
with ct.trace() as t:
    assert get(graph, "total") == sum(i * i for i in range(30))
assert set(spans(t, "node")) == {"total", *(str(("a", i)) for i in range(30))}
with ct.trace() as t:
    get({"x": (abs, -1)}, "x", callbacks=())
    get({"x": (abs, -1), "y": (abs, "x")}, "y", cache={})
assert sum(spans(t, "node").values()) + sum(spans(t, "task").values()) >= 3, t
assert any("y" in name for name in spans(t, "task"))
"""
    run(code)


def test_tasks_of_executors_and_pools_have_their_functions() -> None:
    code = """
import functools
def work(i): return i
class Tool:
    def method(self, i): return i
    def __call__(self, i): return i
tool = Tool()
with ct.trace() as t:
    with ct.Executor(2) as executor:
        list(executor.map(work, range(5)))
        executor.submit(tool.method, 1).result()
        executor.submit(functools.partial(work, 1)).result()
        executor.submit(tool, 1).result()
        executor.submit(abs, 1).result()
    with ct.ThreadPool(2) as pool:
        pool.map(work, range(6), chunksize=1)
        pool.apply(abs, (1,))
        pool.starmap(pow, [(1, 2), (2, 3)], chunksize=1)
    with ct.task(): pass
found = spans(t, "task")
method = "Tool.method" if hasattr(work.__code__, "co_qualname") else "method"  # Python 3.10 tells no more
assert found == {"work": 12, method: 1, "Tool": 1, "abs": 2, "pow": 2, "task": 1}, found
"""
    run(code)


def test_labels_keep_nothing_of_the_program_alive() -> None:
    code = """
import functools, gc, weakref
class Big: pass
big = Big()
gone = weakref.ref(big)
with ct.trace() as t:
    with ct.Executor(2) as executor:
        executor.submit(functools.partial(id, big)).result()
        executor.submit((lambda thing: lambda: thing)(big)).result()
    del big
    gc.collect()
    assert gone() is None
"""
    run(code)


def test_regions_have_numba_functions_and_small_ones_are_counted_together() -> None:
    code = """
import numba, numpy as np
@numba.njit(parallel=True)
def fill(out):
    for i in numba.prange(out.size): out[i] = np.sqrt(out[i]) + i
@numba.njit
def often(out, times):
    for _ in range(times): fill(out)
@numba.vectorize(["float64(float64)"], target="parallel")
def plus(x): return x + 1
out = np.ones(100_000)
fill(out); often(out[:4], 1); plus(out)
with ct.trace() as t:
    fill(out)
    plus(out)
    often(out[:4], 5000)
names = {name for kind in ("region", "runner") for name in spans(t, kind)}
assert {"fill", "plus"} <= names <= {"fill", "plus", "often"}, names
assert t.summary()["count"]["region"] == 5002
regions = [s for thread in t.timeline.threads for s in thread.spans if s.kind == "region"]
assert len(regions) < 500, len(regions)
assert any(s.title.endswith(f"x {s.count:,}") for s in regions if s.count > 1)
"""
    run(code, NUMBA_THREADING_LAYER="composable")


def test_waits_in_the_middle_of_a_task_are_not_busy() -> None:
    code = """
def sleeper():
    with ct.blocking(): time.sleep(0.2)
with ct.trace() as t:
    with ct.Executor(1) as executor: executor.submit(sleeper).result()
summary = t.summary()
assert spans(t, "wait")["blocking()"] == 1
assert summary["waiting_seconds"]["blocking()"] >= 0.2
# Of a sleep all is known but its end: the rest of the task is short beside it.
assert sum(summary["busy_share"]) * summary["seconds"] <= summary["seconds"] - 0.19
"""
    run(code)


def test_a_task_that_is_found_asleep_is_busy_only_until_then() -> None:
    code = """
event = threading.Event()
with ct.trace() as t:
    with ct.Executor(4) as executor:
        asleep = [executor.submit(event.wait) for _ in range(2)]
        executor.submit(event.set)
        for future in asleep: assert future.result()
taken = sum(spans(t, "taken").values())
assert taken >= 1
from composable_threads.timeline.model import pieces_of, sleeps_of
sleeps = sleeps_of(t.timeline)
assert sum(map(len, sleeps.values())) == taken
for thread in t.timeline.threads:
    for at in sleeps.get(thread.tid, ()):
        task = max((s for s in thread.spans if s.kind == "task" and s.begin <= at < s.end), key=lambda s: s.end)
        assert not any(at <= piece.begin < task.end for piece in pieces_of(thread, sleeps[thread.tid]))
"""
    run(code)


def test_widths_of_blas_are_recorded_when_they_change() -> None:
    pytest.importorskip("scipy")
    code = """
import numpy, scipy.linalg
a = numpy.ones((50, 50))
a @ a
here = threading.Barrier(2)
with ct.trace() as t:
    with ct.Executor(2) as executor:
        for future in [executor.submit(here.wait) for _ in range(2)]: future.result()
changes = [s for thread in t.timeline.threads for s in thread.spans if s.kind == "width"]
assert {s.count for s in changes} == {1, 2}, changes
assert all("openblas" in s.name for s in changes)
"""
    run(code)


def test_no_more_than_p_slots_are_busy_and_all_are_told() -> None:
    code = """
def spin(i):
    end = time.perf_counter() + 0.01
    while time.perf_counter() < end: time.sleep(0)
with ct.trace() as t:
    with ct.Executor(2) as executor: list(executor.map(spin, range(40)))
from composable_threads.timeline.model import slots_of
slots = slots_of(t.timeline)
assert len(slots) == 2, [len(slot) for slot in slots]
for slot in slots:
    assert all(a.end <= b.begin + 50e-6 for a, b in zip(slot, slot[1:]))
summary = t.summary()
assert len(summary["busy_share"]) == 2 and all(0 < share <= 1 for share in summary["busy_share"]), summary
assert abs(summary["unused_share"] - (1 - sum(summary["busy_share"]) / 2)) < 1e-9
assert abs(sum(summary["seconds_by_kind"].values()) - sum(summary["busy_share"]) * summary["seconds"]) < 1e-6
assert summary["context_switches"]["voluntary"] >= 1 and summary["cpu_seconds"] > 0
assert summary["runnable"] is None or summary["runnable"]["threads"] >= 2
"""
    run(code)


def test_what_does_not_fit_is_counted_and_told() -> None:
    code = """
with ct.trace(limit=100) as t:
    with ct.Executor(2) as executor: list(executor.map(abs, range(500)))
recorded = sum(len(thread.spans) for thread in t.timeline.threads)
summary = t.summary()
assert recorded == 100 and summary["dropped"] >= 400, (recorded, summary["dropped"])
assert 0 <= summary["complete_until"] < summary["seconds"]
assert f"NOT COMPLETE: {summary['dropped']:,} spans" in repr(t) and "NOT COMPLETE" in t._repr_html_()
t.save("t.json")
from composable_threads.timeline import chrome
assert chrome.read("t.json").dropped == summary["dropped"]
"""
    run(code)


def test_one_trace_at_a_time_and_each_once() -> None:
    code = """
def refused(text, call):
    try: call()
    except RuntimeError as error: assert text in str(error), error
    else: raise AssertionError(text)
t = ct.trace()
refused("not started", lambda: t.timeline)
with t:
    refused("already", ct.trace().start)
    refused("being recorded", t.summary)
t.stop()
refused("recorded once", t.start)
with ct.trace() as second: pass
assert second.timeline.threads == [] and not _native.trace_on()
try:
    with ct.trace() as third: raise KeyError("x")
except KeyError: pass
assert third.timeline.seconds > 0 and not _native.trace_on()
"""
    run(code)


@pytest.mark.parametrize("limit", [0, -1, 1 << 31, 1.5, "9", None, True])
def test_bad_limits_are_refused(limit: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"limit must be .*not"):
        composable_threads.trace(limit=limit)  # type: ignore[arg-type]
    assert not _native.trace_on()


def test_a_forked_child_has_an_empty_timeline_and_can_record() -> None:
    code = """
import warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # Python 3.12 and later, of threads
import os
t = ct.trace().start()
with ct.Executor(2) as executor: list(executor.map(abs, range(5)))
child = os.fork()
if child == 0:
    assert not _native.trace_on() and t.stop().timeline.threads == []
    with ct.trace() as own:
        with ct.Executor(2) as executor: list(executor.map(abs, range(3)))
    os._exit(0 if spans(own, "task") == {"abs": 3} else 1)
assert os.waitpid(child, 0)[1] == 0
assert spans(t.stop(), "task") == {"abs": 5}
"""
    run(code)


def test_the_command_line_records_a_whole_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import atexit, os, sys, warnings\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "def late():\n    with ThreadPoolExecutor(2) as pool: list(pool.map(abs, range(2)))\n"
        "with ThreadPoolExecutor(2) as pool: print(sum(pool.map(len, ['a'] * 9)), sys.argv[1:])\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # Python 3.12 and later, of forks beside threads
        "os.chdir('/')\nif os.fork() == 0: sys.exit(0)\nos.wait()\n"
    )
    command = [
        sys.executable,
        "-m",
        "composable_threads",
        "-p",
        "2",
        "--trace",
        "out.json",
        "program.py",
        "--trace",
        "x",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("9 ['--trace', 'x']\n", "", 0)
    timeline = chrome.read(tmp_path / "out.json")
    tasks = [span.name for thread in timeline.threads for span in thread.spans if span.kind == "task"]
    assert tasks.count("len") == 9 and timeline.slots == len(slots_of(timeline)) <= 2


def test_a_place_that_cannot_be_written_is_refused_before_the_program_runs(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("print('ran')")
    command = [sys.executable, "-m", "composable_threads", "--trace", "no/folder/x.json", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("", 2) and "--trace" in done.stderr and done.stderr.count("\n") == 1


# --- without an arena: timelines made by hand


def span(kind: str, begin: float, end: float, name: str = "f", count: int = 1, width: int = 1) -> Span:
    return Span(kind, name, begin, end, count, width)


def made() -> Timeline:
    first = Thread(
        11,
        "composable-0",
        True,
        [span("region", 2, 4, "inner", 3), span("wait", 5, 6, "for tasks"), span("task", 1, 8)],
    )
    second = Thread(
        12,
        "MainThread",
        False,
        [span("node", 0, 3, "('x', 0)"), span("width", 3, 3, "openblas", 2, 0), span("runner", 6, 9)],
    )
    second.dropped, second.dropped_at = 4, 9.5
    taken = Thread(13, "keeper", False, [span("taken", 8.5, 8.5, "12", 1, 0)])
    samples = [Runnable(0.0, 0.0, 0.0, 3), Runnable(5.0, 1.5, 0.0, 3), Runnable(10.0, 2.0, 1.0, 4)]
    facts = {"context_switches": {"voluntary": 5, "forced": 6}, "cpu_seconds": 1.5}
    return Timeline(2, 10.0, [first, second, taken], samples, facts)


def test_a_thread_computes_its_innermost_span_unless_that_is_a_wait() -> None:
    found = [(piece.begin, piece.end, piece.span.name) for piece in pieces_of(made().threads[0])]
    assert found == [(1, 2, "f"), (2, 4, "inner"), (4, 5, "f"), (6, 8, "f")]


def test_the_summary_of_a_known_timeline() -> None:
    found = summarise(made())
    assert found["seconds_by_kind"] == {"task": 4, "node": 3, "region": 2, "runner": 3}
    assert found["count"] == {"task": 1, "node": 1, "region": 3, "runner": 1}
    assert sorted(found["busy_share"]) == pytest.approx([0.6, 0.6]) and found["unused_share"] == pytest.approx(0.4)
    assert found["waiting_seconds"]["for tasks"] == 1
    runnable = found["runnable"]
    assert (runnable["mean"], runnable["beyond_slots"], runnable["most"]) == pytest.approx((2.25, 0.5, 3.0))
    assert (found["dropped"], found["complete_until"]) == (4, 9.5)
    assert "NOT COMPLETE: 4 spans" in repr(found) and "5 voluntary, 6 forced" in repr(found)


def test_a_thread_that_was_found_asleep_is_not_busy_until_its_task_ends() -> None:
    thread = Thread(1, "w", True, [span("task", 0, 1), span("task", 2, 9), span("region", 3, 4), span("region", 6, 7)])
    assert seconds_busy(pieces_of(thread, [5.0])) == 1 + 4
    assert seconds_busy(pieces_of(thread)) == 8


def test_threads_beyond_p_get_rows_of_their_own() -> None:
    threads = [Thread(n, f"t{n}", False, [span("task", n * 0.1, 2 + n)]) for n in range(3)]
    slots = slots_of(Timeline(2, 5.0, threads))
    assert [[piece.span.end for piece in slot] for slot in slots] == [[2], [3], [4]]
    assert "beyond P" in picture(Timeline(2, 5.0, threads))


def test_a_thread_keeps_its_slot_where_that_is_free() -> None:
    threads = [
        Thread(1, "a", True, [span("task", 0, 1), span("task", 3, 4)]),
        Thread(2, "b", True, [span("task", 0.5, 2.5)]),
    ]
    assert [[piece.begin for piece in slot] for slot in slots_of(Timeline(2, 5.0, threads))] == [[0, 3], [0.5]]


def test_what_is_saved_is_chrome_s_format_and_reads_back(tmp_path: Path) -> None:
    timeline = made()
    chrome.write(timeline, tmp_path / "t.json")
    whole = json.loads((tmp_path / "t.json").read_text())
    assert {event["ph"] for event in whole["traceEvents"]} == {"M", "X", "C", "i"}
    for event in whole["traceEvents"]:
        assert {"ph", "name", "pid"} <= set(event)
        assert event["ph"] == "M" or event["ts"] >= 0
        assert event["ph"] != "X" or (event["dur"] >= 0 and "tid" in event)
    again = chrome.read(tmp_path / "t.json")
    assert again == timeline
    text = io.StringIO()
    chrome.write(again, text)
    assert text.getvalue() == (tmp_path / "t.json").read_text()
    (tmp_path / "other.json").write_text('{"traceEvents": []}')
    with pytest.raises(ValueError, match=r"other\.json' was not written by composable_threads"):
        chrome.read(tmp_path / "other.json")


def test_plot_has_a_row_for_each_slot() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from composable_threads.timeline.plot import plot

    ax = plot(made())
    assert [label.get_text().partition("\n")[0] for label in ax.get_yticklabels()] == ["slot 0", "slot 1"]
    assert {text.get_text() for text in ax.get_legend().get_texts()} >= {"unused", "nodes of Dask graphs"}
    assert "4 spans dropped" in ax.get_title()
    matplotlib.pyplot.close("all")


def test_names_are_escaped_in_html() -> None:
    text = picture(Timeline(1, 1.0, [Thread(1, "<b>", True, [span("task", 0, 1, "<script>&")])]))
    assert "<script>" not in text and "&lt;script&gt;&amp;" in text
