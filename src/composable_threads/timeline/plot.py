"""A timeline drawn with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .model import COMPUTING, TITLES, Timeline, seconds_busy, slots_of
from .svg import BEYOND, COLOURS, UNUSED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Pieces closer than this part of the whole cannot be told apart, and are drawn as one.
_FINEST = 1 / 4000


def plot(timeline: Timeline, ax: Axes | None = None) -> Axes:
    """See ``Trace.plot``."""
    try:
        from matplotlib.patches import Patch
    except ImportError as error:
        raise ImportError("matplotlib is missing; install it with: pip install matplotlib") from error
    slots = slots_of(timeline)
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(10, 1.2 + 0.45 * len(slots)), layout="constrained")
    unit, name = (1.0, "s") if timeline.seconds >= 1 else (1e3, "ms")
    finest = timeline.seconds * _FINEST
    for number, pieces in enumerate(slots):
        if number < timeline.slots:
            ax.broken_barh([(0, timeline.seconds * unit)], (number - 0.4, 0.8), color=UNUSED, linewidth=0)
        bars: dict[str, list[list[float]]] = {}
        for piece in pieces:
            of_kind = bars.setdefault(piece.span.kind, [])
            if of_kind and piece.begin - of_kind[-1][1] < finest:
                of_kind[-1][1] = piece.end
            else:
                of_kind.append([piece.begin, piece.end])
        for kind in reversed(COMPUTING):
            spans = [(begin * unit, max(end - begin, finest / 2) * unit) for begin, end in bars.get(kind, ())]
            if spans:
                ax.broken_barh(spans, (number - 0.4, 0.8), color=COLOURS[kind], linewidth=0)
    labels = []
    for number, pieces in enumerate(slots):
        share = seconds_busy(pieces) / max(timeline.seconds, 1e-9)
        labels.append(f"slot {number}\n{share:.0%} busy" if number < timeline.slots else f"beyond P\n{share:.0%}")
    ax.set_yticks(range(len(slots)), labels)
    for label in ax.get_yticklabels()[timeline.slots :]:
        label.set_color(BEYOND)
    ax.invert_yaxis()
    ax.set_xlim(0, max(timeline.seconds, 1e-9) * unit)
    ax.set_xlabel(f"time [{name}]")
    present = {piece.span.kind for pieces in slots for piece in pieces}
    handles: list[Any] = [Patch(color=COLOURS[kind], label=TITLES[kind]) for kind in COMPUTING if kind in present]
    handles.append(Patch(facecolor=UNUSED, edgecolor="#bbb", label="unused"))
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(3, len(handles)), frameon=False)
    if timeline.dropped:
        ax.axvspan(timeline.complete_until * unit, timeline.seconds * unit, color=BEYOND, alpha=0.15)
        ax.set_title(
            f"not complete: {timeline.dropped:,} spans dropped in the shaded time", color=BEYOND, fontsize="small"
        )
    return ax
