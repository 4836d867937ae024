"""Draws the README's picture from two runs made on the spot: ``python docs/picture.py [FILE]``.

The program below is run as it is and on the arena, each time watched from this process: the kernel counts for how long each
thread ran and for how long it was ready and had no core (schedstat). Take the picture on a machine that has nothing
else to do: what other programs take is drawn as waiting too. The default FILE is ``docs/picture.svg``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from html import escape
from pathlib import Path

import composable_threads
from composable_threads import _compare
from composable_threads.timeline.kernel import ThreadWatch, Use, Watched

# A pool of threads that calls NumPy, whose linear algebra has threads of its own.
PROGRAM = """
from multiprocessing.pool import ThreadPool

import numpy as np

pictures = np.random.default_rng(0).normal(size=({tasks}, 430, 640))
with ThreadPool({threads}) as pool:
    for _ in pool.imap_unordered(np.linalg.svd, pictures):
        pass
"""

WIDTH, LEFT, RIGHT = 960, 28, 28
ROW, GAP = 17, 3
BINS = 150  # over the longer run
RAN, WAITED, EMPTY = "#3b75af", "#e0503a", "#f1f2f4"
INK, FAINT = "#1f2328", "#656d76"
LEAST = 0.03  # of a run: a thread that ran or waited less is not drawn


def watched_run(program: Path, *, arena: bool, cpus: int, timeout: float) -> Watched:
    """Run it once in a process of its own; raises RuntimeError if it fails or takes longer than `timeout` seconds."""
    watch = ThreadWatch(cpus)
    command = [sys.executable, *(["-m", "composable_threads"] if arena else []), str(program)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            sample, code = _compare.measure(command, timeout=timeout, out=out, err=err, watch=watch)
        finally:
            watched = watch.close()
        if code != 0 or not sample.finished:
            raise RuntimeError(_compare.tail_of(err) or f"not finished after {timeout:g} s")
    return watched


def threads_of(watched: Watched) -> list[dict[int, Use]]:
    """What each thread that did something did, in the order in which they began."""
    busy = []
    for uses in watched.uses.values():
        spent = sum(
            (use.ran + use.waited) * (watched.times[number] - watched.times[number - 1]) for number, use in uses.items()
        )
        if spent > LEAST * watched.seconds:
            busy.append(uses)
    return sorted(busy, key=min)


def binned(watched: Watched, uses: dict[int, Use], step: float) -> list[Use]:
    """Averages over equal parts of `step` seconds."""
    sums = [[0.0, 0.0] for _ in range(int(watched.seconds / step) + 1)]
    for number, use in uses.items():
        begin, end = watched.times[number - 1], watched.times[number]
        for at in range(int(begin / step), min(int(end / step), len(sums) - 1) + 1):
            part = max(0.0, min(end, (at + 1) * step) - max(begin, at * step)) / step
            sums[at][0] += use.ran * part
            sums[at][1] += use.waited * part
    return [Use(min(1.0, ran), min(1.0, waited)) for ran, waited in sums]


def boxes(places: list[tuple[float, float, float, float]], colour: str) -> str:
    """Many rectangles, `(x, y, width, height)`, as one shape: a third of the bytes."""
    return f'<path fill="{colour}" d="{"".join(f"M{x:.1f} {y:.1f}h{w:.1f}v{h:.1f}h-{w:.1f}z" for x, y, w, h in places)}"/>'


def words(x: float, y: float, text: str, size: int = 15, colour: str = INK, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}"{more}>{escape(text)}</text>'


def panel(watched: Watched, top: float, seconds: float, title: str, told: str) -> tuple[str, float]:
    """One run, from `top` down, with `seconds` as the whole width; the drawing and its bottom."""
    unit = (WIDTH - LEFT - RIGHT) / seconds
    step = seconds / BINS
    threads = threads_of(watched)
    y = top + 34
    empty, ran, waited = [], [], []
    for uses in threads:
        empty.append((LEFT, y, watched.seconds * unit, ROW))
        for number, use in enumerate(binned(watched, uses, step)):
            x, width = LEFT + number * step * unit, min(step, watched.seconds - number * step) * unit
            blue, red = ROW * use.ran, ROW * min(use.waited, 1 - use.ran)
            if blue > 0.4:
                ran.append((x, y + ROW - blue, width, blue))
            if red > 0.4:
                waited.append((x, y + ROW - blue - red, width, red))
        y += ROW + GAP
    end = LEFT + watched.seconds * unit
    parts = [
        words(LEFT, top + 8, title, 17, more=' font-weight="600"'),
        words(LEFT, top + 27, told, 14, FAINT),
        boxes(empty, EMPTY) + boxes(waited, WAITED) + boxes(ran, RAN),
        f'<path stroke="{INK}" stroke-width="2" d="M{end:.1f} {top + 30:.0f}V{y:.0f}"/>',
    ]
    finished, near = f"finished: {watched.seconds:.1f} s", end > WIDTH - 200
    place = (end, top + 22, finished, 15, INK, ' text-anchor="end" font-weight="600"') if near else (
        end + 10, top + 34 + (y - top - 34) / 2 + 4, finished, 15, INK, ' font-weight="600"'
    )  # fmt: skip
    return "".join([*parts, words(*place)]), y


def counted(threads: int) -> str:
    return f"{threads} thread{'s' if threads != 1 else ''}"


def picture(stock: Watched, ours: Watched) -> str:
    cpus, seconds = stock.cpus, max(stock.seconds, ours.seconds)
    cores = f"{cpus} core{'s' if cpus != 1 else ''}"
    many, few = len(threads_of(stock)), len(threads_of(ours))
    body = [words(LEFT, 34, f"The same program, run twice on {cores}", 22, more=' font-weight="700"')]
    x = LEFT
    for colour, text in ((RAN, "this thread has a core"), (WAITED, "it could go on, but all cores are taken: it waits"), (EMPTY, "it sleeps")):
        body.append(f'<rect x="{x}" y="49" width="14" height="14" fill="{colour}" stroke="#0002"/>')
        body.append(words(x + 21, 61, text, 14, FAINT))
        x += 21 + round(7.1 * len(text)) + 24
    drawn, y = panel(
        stock, 98, seconds, "As it is", f"A pool starts threads, and NumPy starts more for each of them: {counted(many)} want {cores}."
    )
    body.append(drawn)
    drawn, y = panel(
        ours, y + 34, seconds, "python -m composable_threads program.py", f"Both share one pool, which computes with {cpus} threads at a time."
    )
    body.append(drawn)
    note = "Each line is a thread, from left to right over time. Waiting costs no more than time; but a thread that waits holds up all who need its part."
    body.append(words(LEFT, y + 28, note, 13, FAINT))
    height = y + 44
    label = f"{counted(many)} on {cores} take {stock.seconds:.1f} s; on one pool the program takes {ours.seconds:.1f} s with {few}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'font-family="-apple-system,Segoe UI,Helvetica,Arial,sans-serif"><rect width="{WIDTH}" height="{height:.0f}" '
        f'fill="#fff"/>{"".join(body)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("picture.svg"))
    parser.add_argument("--tasks", type=int, default=24, help="decompositions (default 24)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the pool, and of NumPy as it is")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for each run (default 120)")
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    cpus = composable_threads.info()["slots"]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program.py")
        program.write_text(PROGRAM.format(tasks=options.tasks, threads=options.threads))
        runs = [watched_run(program, arena=arena, cpus=cpus, timeout=options.timeout) for arena in (False, True)]
    if not all(run.exact for run in runs):
        sys.exit("this kernel does not count how long threads wait (no /proc/<pid>/task/<tid>/schedstat)")
    options.file.write_text(picture(*runs), encoding="utf-8")
    print(f"{options.file}: {options.file.stat().st_size / 1000:.0f} kB, " + " against ".join(f"{run.seconds:.2f} s" for run in runs))


if __name__ == "__main__":
    main()
