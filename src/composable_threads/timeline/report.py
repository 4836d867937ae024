"""The page of ``compare --html``: one file that loads nothing and runs no script, for people who never heard of any of this."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from .kernel import Use, Watched
from .svg import BEYOND, LEFT, WIDTH, axis, duration, legend, next_step, rect, scale, slots_picture, text, wrap

if TYPE_CHECKING:
    from .._compare import Sample, View

RAN, OTHERS = "#3b75af", "#c3c9d1"
BINS = 320  # across a picture
MOST_ROWS = 24  # threads drawn; the busiest
LEAST_SHARE = 0.001  # of all time that threads wanted; who wanted less is not drawn
HEIGHT = 150  # of the chart of totals
NAMES = {"stock": "as it is", "composable": "on one arena (composable-threads)"}

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1060px;margin:2em auto;padding:0 1.2em;background:#fff}
h1{font-size:1.5em;margin:0 0 .2em}h2{font-size:1.15em;margin:2em 0 .3em}h3{font-size:1em;margin:1.2em 0 .2em}
p{margin:.4em 0;max-width:60em}.lead{font-size:1.15em}.small{color:#666;font-size:.86em}
table{border-collapse:collapse;margin:.8em 0}td,th{padding:.25em .9em;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}.key{display:inline-block;width:.8em;height:.8em;border:1px solid #0003}
code{background:#f3f4f6;padding:.1em .3em}svg{display:block;height:auto}
"""


def page(
    program: Sequence[str],
    stock: Sequence[Sample],
    composable: Sequence[Sample],
    views: Mapping[str, View],
    *,
    timeout: float | None,
) -> str:
    """The whole document. `views` has an extra, watched run of each."""
    cpus = views["stock"].watched.cpus
    seconds = max(view.wall_seconds for view in views.values())
    most = max(cpus + 1.0, *(_highest(view.watched) for view in views.values()))
    name = " ".join(program)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        # Nothing may be asked of any network: said to the browser, too.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">",
        # Else a browser asks the page's server for an icon.
        '<link rel="icon" href="data:,">',
        f"<title>{escape(name)}: stock and composable</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(name)}, run in two ways</h1>",
        _lead(stock, composable, views, cpus, timeout),
        "<h2>The numbers</h2>",
        _table(stock, composable, timeout),
        f"<h2>How many threads wanted a CPU, moment by moment</h2>{_what_it_means(cpus)}",
    ]
    for kind, view in views.items():
        beyond = view.watched.beyond()
        told = f"{escape(NAMES[kind]).capitalize()}: {duration(view.wall_seconds)}; on average {beyond:.1f} threads too many"
        parts.append(f"<h3>{told}</h3>{_totals(view.watched, seconds, most)}")
    parts.append(
        "<h2>Thread by thread</h2><p>Each line is one thread of the program, over the same time. A thread that is "
        "<b style='color:#3b75af'>blue</b> ran; where it is <b style='color:#c53a32'>red</b> it was ready, but stood in line "
        "behind other threads of the same program. White: it slept, and cost nothing.</p>"
    )
    for kind, view in views.items():
        parts.append(f"<h3>{escape(NAMES[kind]).capitalize()}</h3>{_threads(view.watched, seconds)}")
    parts.append(_slots(views["composable"]))
    parts.append(_foot(program, views))
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _wall(runs: Sequence[Sample], timeout: float | None) -> str:
    if not runs[-1].finished:
        return f"not finished after {timeout:g} s"
    return duration(statistics.median(run.wall_seconds for run in runs))


def _in_words(ratio: float) -> str:
    if ratio < 0.95:
        return f"{1 / ratio:.2g} times as fast"
    return "about the same" if ratio <= 1.05 else f"{ratio:.2g} times as slow"


def _lead(
    stock: Sequence[Sample], composable: Sequence[Sample], views: Mapping[str, View], cpus: int, timeout: float | None
) -> str:
    walls = f"As it is: <b>{_wall(stock, timeout)}</b>. On one arena: <b>{_wall(composable, timeout)}</b>"
    if stock[-1].finished and composable[-1].finished:
        pairs = zip(composable, stock, strict=True)
        walls += f", {_in_words(statistics.median(ours.wall_seconds / theirs.wall_seconds for ours, theirs in pairs))}"
    before, after = (views[kind].watched.beyond() for kind in ("stock", "composable"))
    count = f"{cpus} CPU" + ("s" if cpus != 1 else "")
    if before >= 0.2 and after < 0.6 * before:
        why = (
            f"This program may use {count}. As it is, on average {before:.1f} more threads than that wanted to run at the same "
            f"time: its libraries each start threads of their own and do not know of one another. On one arena, which they share, "
            f"it was {after:.1f}."
        )
    elif before >= 0.2:
        why = (
            f"This program may use {count}. As it is, on average {before:.1f} more threads than that wanted to run at the same "
            f"time; on one arena it was {after:.1f}. Which threads these are is seen below, thread by thread: those of the "
            f"arena are called composable-0, composable-1 and so on."
        )
    else:
        why = (
            f"This program may use {count}, and as it is it seldom has more threads ready than that ({before:.1f} too many "
            f"on average). "
        )
        turns = [run.context_switches for run in (stock[-1], composable[-1])]
        if turns[0] is not None and turns[1] is not None and turns[0] > 2 * turns[1]:
            why += (
                f"But its threads wait for one another: they took turns {turns[0]:,} times (context switches), on one arena "
                f"{turns[1]:,} times."
            )
        else:
            why += "So there is little for an arena to mend here."
    rounds = "" if len(stock) > 1 else "<p>Each was run once: that may be luck. <code>--rounds 5</code> says more.</p>"
    return f'<p class="lead">{walls}.</p>{rounds}<p>{why}</p>'


def _what_it_means(cpus: int) -> str:
    line = "one thread at a time" if cpus == 1 else f"{cpus} threads at a time, one on each"
    return (
        f"<p>{cpus} CPU{'s' if cpus != 1 else ''} can run {line}. When more threads are ready than that, they take turns: "
        "some stand in line while others run, and at each change of turn a CPU drops the data it had at hand. That is "
        "called <b>oversubscription</b>. It looks busy, and much of the time goes into taking turns, or into spinning: "
        "running, but only to wait for a thread that stands in line.</p>"
    )


def _binned(watched: Watched, seconds: float, uses: Sequence[Use | None]) -> list[Use]:
    """Averages over BINS equal parts of the whole; `uses` is by look."""
    width = seconds / BINS
    sums = [[0.0, 0.0] for _ in range(BINS)]
    for number in range(1, len(watched.times)):
        use = uses[number]
        if use is None:
            continue
        begin, end = watched.times[number - 1], watched.times[number]
        first = int(begin / width)
        for at in range(first, min(int(end / width) + 1, BINS)):
            part = (min(end, (at + 1) * width) - max(begin, at * width)) / width
            if part > 0:
                sums[at][0] += use.ran * part
                sums[at][1] += use.waited * part
    return [Use(*pair) for pair in sums]


def _highest(watched: Watched) -> float:
    # Of a short moment it says little, and it would flatten all the rest.
    values = sorted(use.ran + use.waited for use in _binned(watched, max(watched.seconds, 1e-9), watched.totals()))
    return values[int(0.99 * (len(values) - 1))]


def _totals(watched: Watched, seconds: float, most: float) -> str:
    top, bottom = 34.0, 34.0 + HEIGHT
    per_thread = HEIGHT / (1.08 * most)
    bins = _binned(watched, seconds, watched.totals())
    step = max(1, int(next_step(most / 5)))
    body = [axis(seconds, top, bottom)]
    for count in range(0, int(most) + 1, step):
        y = bottom - count * per_thread
        body.append(text(LEFT - 8, y + 4, str(count), anchor="end", fill="#666", size=11))
    width = (WIDTH - LEFT - 8) / BINS
    for number, (ran, waited) in enumerate(bins):
        x, y = LEFT + number * width, bottom
        others = max(0.0, min(watched.cpus - ran, waited))
        beyond = max(0.0, ran + waited - watched.cpus) if waited > 0 else 0.0
        beyond = min(beyond, waited)
        told = f"{ran:.1f} ran, {beyond:.1f} too many"
        for amount, colour in ((ran, RAN), (others, OTHERS), (beyond, BEYOND)):
            height = min(amount * per_thread, y - top)
            if height > 0.2:
                body.append(rect(x, y - height, width + 0.1, height, colour, told))
                y -= height
    y = bottom - watched.cpus * per_thread
    body.append(
        f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#111" stroke-width="1.5" stroke-dasharray="6 4"/>'
    )
    label = f"{watched.cpus} CPU{'s' if watched.cpus != 1 else ''}: all that can run"
    body.append(
        text(
            WIDTH - 12,
            y - 5,
            label,
            anchor="end",
            fill="#111",
            size=12,
            more=' font-weight="600" paint-order="stroke" stroke="#fff" stroke-width="4"',
        )
    )
    if watched.seconds < 0.98 * seconds:
        x = scale(watched.seconds, seconds)
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#519e3e" stroke-width="2"/>')
        body.append(text(x + 6, top + 14, "finished", fill="#3d7a2e", size=13))
    body.append(
        legend(
            [
                (RAN, "threads that ran"),
                (BEYOND, "too many: ready, standing in line"),
                (OTHERS, "ready, but another program had the CPU"),
            ],
            18,
        )
    )
    return wrap("".join(body), bottom + 22, "threads that wanted a CPU over time")


def _threads(watched: Watched, seconds: float) -> str:
    spent = {thread: sum(use.ran + use.waited for use in uses.values()) for thread, uses in watched.uses.items()}
    busy = [thread for thread in spent if spent[thread] >= LEAST_SHARE * sum(spent.values())]
    shown = sorted(sorted(busy, key=spent.__getitem__, reverse=True)[:MOST_ROWS])
    height, top = 12.0, 6.0
    totals = _binned(watched, seconds, watched.totals())
    width = (WIDTH - LEFT - 8) / BINS
    body = []
    for row, thread in enumerate(shown):
        uses = watched.uses[thread]
        y = top + row * (height + 2)
        name = watched.names.get(thread, "")[:15]
        body.append(text(LEFT - 8, y + 10, name, anchor="end", fill="#666", size=10))
        body.append(rect(LEFT, y, WIDTH - LEFT - 8, height, "#f7f8f9"))
        bins = _binned(watched, seconds, [uses.get(number) for number in range(len(watched.times))])
        for number, (ran, waited) in enumerate(bins):
            x = LEFT + number * width
            if ran > 0.02:
                body.append(rect(x, y + height * (1 - min(ran, 1)), width + 0.1, height * min(ran, 1), RAN))
            total = totals[number]
            excess = total.ran + total.waited - watched.cpus
            red = waited * min(1.0, max(0.0, excess) / max(total.waited, 1e-9))
            red = min(red, 1 - min(ran, 1))
            if red > 0.05:
                body.append(rect(x, y + height * (1 - min(ran, 1) - red), width + 0.1, height * red, BEYOND))
    bottom = top + len(shown) * (height + 2)
    body.insert(0, axis(seconds, top, bottom))
    more = len(spent) - len(shown)
    note = f'<p class="small">{more} more threads, which did less, are not drawn.</p>' if more > 0 else ""
    return wrap("".join(body), bottom + 22, "what each thread did over time") + note


def _slots(view: View) -> str:
    head = "<h2>What ran in the arena</h2>"
    if view.timeline is None:
        return f'{head}<p class="small">The program ended in a way that left no trace (os._exit, or a signal).</p>'
    slots = view.timeline.slots
    told = (
        f"<p>The arena has {slots} slot{'s' if slots != 1 else ''}, as many as CPUs. Joblib, Dask, Numba and executors put their "
        "work into these and into nothing else; colours say who. Pale is unused: the program did something else meanwhile, such "
        "as importing, reading or one call on its own. Here the time axis is the run's own. Point at a piece for its name. "
        "<span class='small'><code>python -m composable_threads --trace out.json</code> writes this for Perfetto.</span></p>"
    )
    if view.timeline.dropped:
        told += (
            f'<p class="small">Not complete: {view.timeline.dropped:,} pieces after '
            f"{duration(view.timeline.complete_until)} did not fit into the trace.</p>"
        )
    return f"{head}{told}{slots_picture(view.timeline)}"


def _table(stock: Sequence[Sample], composable: Sequence[Sample], timeout: float | None) -> str:
    from .._compare import COLUMNS, cell, ratio

    head = "".join(f"<th>{escape(title)}</th>" for title, _ in COLUMNS.values())
    rows = [f"<tr><th></th>{head}</tr>"]
    for name, runs in (("as it is (stock)", stock), ("on one arena (composable)", composable)):
        cells = "".join(f"<td>{escape(cell(list(runs), column, timeout=timeout))}</td>" for column in COLUMNS)
        rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    cells = "".join(
        f"<td>{escape(ratio(list(stock), list(composable), column, timeout=timeout))}</td>" for column in COLUMNS
    )
    rows.append(f"<tr><td>ratio, below 1 is better</td>{cells}</tr>")
    count = len(composable)
    return (
        f"<table>{''.join(rows)}</table><p class='small'>Median of {count} run{'s' if count != 1 else ''} each, in turn, and "
        "their spread. A context switch is a change of turn on a CPU.</p>"
    )


def _foot(program: Sequence[str], views: Mapping[str, View]) -> str:
    from .. import __version__

    exact = all(view.watched.exact for view in views.values())
    how = (
        "the kernel's count of each thread's running and waiting time (schedstat)"
        if exact
        else "which threads were ready at each look"
    )
    looks = ", ".join(f"{len(view.watched.times):,} looks ({kind})" for kind, view in views.items())
    missed = sum(view.watched.missed for view in views.values())
    more = " There were more threads than were looked at." if missed else ""
    return (
        f'<h2>How this was measured</h2><p class="small">The pictures are of one more run each, watched from another process: '
        f"{how}; {looks}.{more} These runs may take a little longer than those of the table. Other programs on the machine "
        f"slow both ways down. {os.cpu_count()} CPUs, {escape(platform.machine())}, {escape(platform.system())} "
        f"{escape(platform.release())}, Python {escape(platform.python_version())}, composable-threads {__version__}; "
        f"<code>{escape(' '.join([os.path.basename(sys.executable), *program]))}</code>.</p>"
    )
