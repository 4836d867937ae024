"""``info()`` as a page of text and as HTML."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from html import escape
from typing import Any

_WIDTH = 110


def sections(facts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Title, and rows of a name and what is said of it."""
    return [
        ("arena", _arena(facts)),
        ("hosts", _hosts(facts)),
        ("libraries", _libraries(facts)),
        ("advice", [("!", text) for text in facts["advice"]] or [("", "nothing is amiss")]),
    ]


def _arena(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    quota = "no quota" if facts["quota"] is None else f"quota {facts['quota']:g} CPUs ({facts['quota_group']})"
    variable = "COMPOSABLE_NUM_THREADS not set"
    if facts["variable"] is not None:
        variable = f"COMPOSABLE_NUM_THREADS={facts['variable']}"
    rows = [
        (
            "P",
            f"{facts['slots']}, set by {facts['slots_source']}: {facts['affinity']} CPUs in the affinity mask, {quota}, {variable}",
        )
    ]
    if facts["most"] < facts["slots"]:
        rows.append(("limit", f"{facts['most']} may compute now"))
    state = (
        "not started"
        if not facts["started"]
        else f"{facts['running']} running now, {facts['peak_running']} at most so far"
    )
    if facts["forked"]:
        state += "; in a forked child"
    rows.append(("state", state + (", activated" if facts["active"] else "")))
    rows.append(("libtbb", f"{facts['tbb']['version']}, {facts['tbb']['path']}"))
    return rows


def _hosts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    doors = {module.partition(".")[0]: state for module, state in facts["doors"].items()}
    rows = []
    for name, version in facts["hosts"].items():
        if version is None:
            rows.append((name, "not installed"))
            continue
        door = f"; door: {doors[name]}" if name in doors else ""
        if name == "numba" and facts["numba_layer"] is not None:
            door += f", layer {facts['numba_layer']!r}"
        rows.append((name, f"{version}, {facts['host_paths'][name]}{door}"))
    return rows


def _libraries(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for row in facts["libraries"]:
        if row["path"] is None:
            rows.append((row["kind"], "not loaded"))
            continue
        words = [os.path.basename(row["path"])]
        if row["version"]:
            words.append(row["version"])
        if row["origin"]:
            words.append(f"from {row['origin']}")
        if row["width"] is not None:
            words.append(f"{row['width']} threads")
        words.append(row["governed"])
        words.append(
            f"idle threads: {row['spin_limit']}" if row["spin_limit"] else "idle threads spin as long as they like"
        )
        rows.append((row["kind"], "; ".join(words)))
    return rows


def page(facts: Mapping[str, Any]) -> str:
    lines = []
    for title, rows in sections(facts):
        lines.append(title)
        margin = max(len(name) for name, _ in rows) + 4
        for name, words in rows:
            start = f"  {name}".ljust(margin)
            lines += textwrap.wrap(
                words,
                _WIDTH,
                initial_indent=start,
                subsequent_indent=" " * margin,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [start]
    return "\n".join(lines)


def html(facts: Mapping[str, Any]) -> str:
    parts = ['<table style="text-align:left">']
    for title, rows in sections(facts):
        parts.append(f'<tr><th colspan="2" style="text-align:left">{escape(title)}</th></tr>')
        for name, words in rows:
            parts.append(
                f'<tr><td style="text-align:left">{escape(name)}</td><td style="text-align:left">{escape(words)}</td></tr>'
            )
    parts.append("</table>")
    return "".join(parts)
