"""A timeline as SVG, for notebooks and for the report of ``compare``: nothing is loaded, no script runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .model import COMPUTING, TITLES, Piece, Timeline, seconds_busy, slots_of
from .summary import summarise

COLOURS = {"task": "#3b75af", "node": "#519e3e", "region": "#ef8636", "runner": "#f6bf85"}
UNUSED = "#eef0f2"
BEYOND = "#c53a32"
WIDTH, LEFT, ROW, GAP = 960, 96, 26, 5  # of a drawing, in its own units
_LEAST = 0.6  # units: what is narrower is drawn together with its neighbours

STYLE = "font-family:system-ui,sans-serif;font-size:12px"


def scale(time: float, seconds: float) -> float:
    """Where a moment is, from the left."""
    return LEFT + (WIDTH - LEFT - 8) * time / max(seconds, 1e-9)


def rect(x: float, y: float, width: float, height: float, fill: str, title: str = "", more: str = "") -> str:
    shape = f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"{more}'
    return f"{shape}><title>{escape(title)}</title></rect>" if title else f"{shape}/>"


def text(
    x: float, y: float, words: str, *, anchor: str = "start", fill: str = "#222", size: int = 12, more: str = ""
) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size}"{more}>{escape(words)}</text>'


def axis(seconds: float, top: float, bottom: float) -> str:
    """Marks of time below, with faint lines up through the picture."""
    step = next_step(seconds / 8)
    parts = []
    for number in range(int(seconds / step + 1e-9) + 1):
        x = scale(number * step, seconds)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="#0001"/>')
        parts.append(text(x, bottom + 14, duration(number * step), anchor="middle", fill="#666", size=11))
    return "".join(parts)


def next_step(least: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 1e-7
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return factor * power
        power *= 10


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return "0" if seconds < 1e-9 else f"{seconds * 1e9:.3g} ns"


def rows(timeline: Timeline, slots: Sequence[list[Piece]], top: float) -> tuple[str, float]:
    """A row for each slot, from `top` down; the drawing and its bottom."""
    seconds = max(timeline.seconds, 1e-9)
    parts = []
    for number, pieces in enumerate(slots):
        y = top + number * (ROW + GAP)
        beyond = number >= timeline.slots
        share = seconds_busy(pieces) / seconds
        name = f"slot {number}" if not beyond else "beyond P"
        parts.append(text(LEFT - 8, y + ROW * 0.45, name, anchor="end", fill=BEYOND if beyond else "#222"))
        parts.append(text(LEFT - 8, y + ROW * 0.45 + 12, f"busy {share:.0%}", anchor="end", fill="#666", size=10))
        if not beyond:
            parts.append(rect(LEFT, y, WIDTH - LEFT - 8, ROW, UNUSED, "unused: nothing computed in this slot"))
        parts.append(drawn(pieces, y, seconds))
    return "".join(parts), top + len(slots) * (ROW + GAP) - GAP


def drawn(pieces: Iterable[Piece], y: float, seconds: float) -> str:
    """Rectangles of one slot; narrow neighbours become one, as high as they fill their time, in their main colour."""
    parts: list[str] = []
    crowd: list[Piece] = []

    def flush() -> None:
        if not crowd:
            return
        begin, end = crowd[0].begin, crowd[-1].end
        busy: dict[str, float] = {}
        for piece in crowd:
            busy[piece.span.kind] = busy.get(piece.span.kind, 0.0) + piece.end - piece.begin
        x, right = scale(begin, seconds), scale(end, seconds)
        width = max(right - x, 0.3)
        filled = sum(busy.values()) / max(end - begin, 1e-12)
        kind = max(busy, key=busy.__getitem__)
        if len(crowd) == 1:
            span = crowd[0].span
            told = f"{span.title}\n{span.kind}, {duration(span.end - span.begin)} from {duration(span.begin)}"
        else:
            names = list(dict.fromkeys(piece.span.name for piece in crowd))
            told = (
                f"{len(crowd):,} pieces, {filled:.0%} of this time: "
                + ", ".join(names[:4])
                + (" ..." if names[4:] else "")
            )
        height = ROW * min(1.0, filled)
        parts.append(rect(x, y + ROW - height, width, height, COLOURS[kind], told))
        crowd.clear()

    left = 0.0
    for piece in pieces:
        x, right = scale(piece.begin, seconds), scale(piece.end, seconds)
        if crowd and (right - x >= _LEAST or right - left >= _LEAST):
            flush()
        if not crowd:
            left = x
        crowd.append(piece)
        if right - x >= _LEAST:
            flush()
    flush()
    return "".join(parts)


def legend(kinds: Iterable[tuple[str, str]], y: float, x: float = LEFT) -> str:
    """Coloured squares with words, `(colour, words)`, in one line."""
    parts = []
    for colour, words in kinds:
        parts.append(rect(x, y - 10, 12, 12, colour, more=' stroke="#0003"'))
        parts.append(text(x + 17, y, words, fill="#444"))
        x += 17 + 6.6 * len(words) + 20
    return "".join(parts)


def wrap(body: str, height: float, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="100%" style="{STYLE};'
        f'max-width:{WIDTH * 1.25:.0f}px;background:#fff" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def kinds_in(timeline: Timeline) -> list[tuple[str, str]]:
    present = {span.kind for thread in timeline.threads for span in thread.spans}
    return [(COLOURS[kind], TITLES[kind]) for kind in COMPUTING if kind in present] + [(UNUSED, "unused")]


def slots_picture(timeline: Timeline) -> str:
    """Slots as rows, with a legend and a time axis."""
    seconds = max(timeline.seconds, 1e-9)
    body, bottom = rows(timeline, slots_of(timeline), 30)
    body = legend(kinds_in(timeline), 16) + axis(seconds, 26, bottom) + body
    return wrap(body, bottom + 22, "what each slot of the arena did over time")


def picture(timeline: Timeline) -> str:
    """What a notebook shows."""
    lines = "<br>".join(escape(line) for line in summarise(timeline).lines())
    return f'<div>{slots_picture(timeline)}<div style="{STYLE};color:#333;white-space:pre-wrap">{lines}</div></div>'
