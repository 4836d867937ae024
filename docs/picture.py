"""Draws the README's picture from two runs made on the spot: ``python docs/picture.py [FILE]``.

The program below is run as it is and on the arena, each time watched from this process: the kernel counts for how long
each thread ran and for how long it was ready and had no core (schedstat). Take the picture on a machine that does
nothing else: a thread that waits for another program's is drawn as waiting too. FILE is docs/picture.svg by default.
"""

from __future__ import annotations

import argparse
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
with ThreadPool() as pool:
    for _ in pool.imap_unordered(np.linalg.svd, pictures):
        pass
"""

WIDTH, LEFT, RIGHT = 960, 128, 28
MARGIN = 28
ROW, GAP = 18, 4
BINS = 150  # over the longer run
RAN, WAITED, EMPTY = "#3b75af", "#e0503a", "#f1f2f4"
INK, FAINT = "#1f2328", "#656d76"
BOLD, END = ' font-weight="600"', ' text-anchor="end"'
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


def spent(watched: Watched, uses: dict[int, Use]) -> tuple[float, float]:
    """Seconds that a thread ran, and that it waited for a core."""
    passed = {number: watched.times[number] - watched.times[number - 1] for number in uses}
    return tuple(sum(use[which] * passed[number] for number, use in uses.items()) for which in (0, 1))  # type: ignore[return-value]


def threads_of(watched: Watched) -> list[dict[int, Use]]:
    """What each thread that did something did, the program's first thread first, then as they began."""
    kept = {ids: uses for ids, uses in watched.uses.items() if sum(spent(watched, uses)) > LEAST * watched.seconds}
    return [kept[ids] for ids in sorted(kept, key=lambda ids: (ids[0] != ids[1], min(kept[ids])))]


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
    return (
        f'<path fill="{colour}" d="{"".join(f"M{x:.1f} {y:.1f}h{w:.1f}v{h:.1f}h-{w:.1f}z" for x, y, w, h in places)}"/>'
    )


def words(x: float, y: float, text: str, size: int = 15, colour: str = INK, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}"{more}>{escape(text)}</text>'


def panel(watched: Watched, top: float, seconds: float, title: str, told: str) -> tuple[str, float]:
    """One run, from `top` down, with `seconds` as the whole width; the drawing and its bottom."""
    unit = (WIDTH - LEFT - RIGHT) / seconds
    step = seconds / BINS
    y = top + 40
    names, empty, ran, waited = [], [], [], []
    for row, uses in enumerate(threads_of(watched)):
        names.append(words(LEFT - 10, y + 13, "main thread" if row == 0 else f"thread {row + 1}", 13, FAINT, END))
        empty.append((LEFT, y, watched.seconds * unit, ROW))
        for number, use in enumerate(binned(watched, uses, step)):
            x, width = LEFT + number * step * unit, min(step, watched.seconds - number * step) * unit
            blue, red = ROW * use.ran, ROW * min(use.waited, 1 - use.ran)
            if blue > 0.4:
                ran.append((x, y + ROW - blue, width, blue))
            if red > 0.4:
                waited.append((x, y + ROW - blue - red, width, red))
        y += ROW + GAP
    end, bottom = LEFT + watched.seconds * unit, y - GAP
    finished = f"finished after {watched.seconds:.1f} s"
    if end > WIDTH - 180:
        done = words(end, top + 8, finished, 16, INK, BOLD + END)
    else:
        done = words(end + 10, (top + 40 + bottom) / 2 + 5, finished, 16, INK, BOLD)
    parts = [
        words(MARGIN, top + 8, title, 17, INK, BOLD),
        words(MARGIN, top + 28, told, 14, FAINT),
        *names,
        boxes(empty, EMPTY) + boxes(waited, WAITED) + boxes(ran, RAN),
        f'<path stroke="{INK}" stroke-width="2" d="M{end:.1f} {top + 36:.0f}V{bottom + 4:.0f}"/>',
        done,
    ]
    return "".join(parts), bottom


def picture(stock: Watched, ours: Watched) -> str:
    cpus, seconds = stock.cpus, max(stock.seconds, ours.seconds)
    cores = f"{cpus} core{'s' if cpus != 1 else ''}"
    ran, waited = (sum(times) for times in zip(*(spent(stock, uses) for uses in stock.uses.values()), strict=True))
    ran_ours = sum(spent(ours, uses)[0] for uses in ours.uses.values())
    body = [
        words(MARGIN, 36, "More threads than cores: why it is slow", 23, INK, BOLD),
        words(
            MARGIN,
            60,
            f"One program, run twice on {cores}. Each line is one of its threads; time goes from left to right.",
            15,
            FAINT,
        ),
    ]
    x = MARGIN
    for colour, text in (
        (RAN, "has a core"),
        (WAITED, "could go on, but the cores are taken: stands in line"),
        (EMPTY, "sleeps, costs nothing"),
    ):
        body.append(f'<rect x="{x}" y="75" width="14" height="14" fill="{colour}" stroke="#0002"/>')
        body.append(words(x + 21, 87, text, 14, INK))
        x += 21 + round(7.0 * len(text)) + 26
    told = (
        f"A pool has {cpus} threads; NumPy, called in them, adds its own. They stand in line "
        f"{waited / (ran + waited):.0%} of the time, and keep the cores busy for {ran:.1f} s."
    )
    drawn, y = panel(stock, 120, seconds, "As it is", told)
    body.append(drawn)
    told = (
        f"Pool and NumPy share {cpus} threads. The same answer takes the cores {ran_ours:.1f} s: "
        "nobody waits for one who stands in line."
    )
    drawn, y = panel(ours, y + 40, seconds, "python -m composable_threads program.py", told)
    body.append(drawn)
    height = round(y + 26)
    label = f"On {cores}: {stock.seconds:.1f} s as it is, {ours.seconds:.1f} s where the libraries share one pool."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(label)}" font-family="-apple-system,Segoe UI,Helvetica,Arial,sans-serif">'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{"".join(body)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("picture.svg"))
    parser.add_argument("--tasks", type=int, default=16, help="decompositions (default 16)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for each run (default 120)")
    options = parser.parse_args()
    cpus = composable_threads.info()["slots"]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program.py")
        program.write_text(PROGRAM.format(tasks=options.tasks))
        runs = [watched_run(program, arena=arena, cpus=cpus, timeout=options.timeout) for arena in (False, True)]
    if not all(run.exact for run in runs):
        sys.exit("this kernel does not count how long threads wait (no /proc/<pid>/task/<tid>/schedstat)")
    options.file.write_text(picture(*runs), encoding="utf-8")
    print(
        f"{options.file}: {options.file.stat().st_size / 1000:.0f} kB, "
        + " against ".join(f"{run.seconds:.2f} s" for run in runs)
    )


if __name__ == "__main__":
    main()
