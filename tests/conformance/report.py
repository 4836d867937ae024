"""Outcomes as text."""

from __future__ import annotations

from collections import Counter

from conformance.suites import Outcome


def line(name: str, *outcomes: Outcome) -> str:
    """The figures of one suite or of all."""

    def total(what: str) -> int:
        return sum(len(getattr(outcome, what)) for outcome in outcomes)

    return (
        f"{name:34} {total('passed'):6} passed {total('failed'):4} failed {total('differs'):4} expected to differ "
        f"{total('left_out'):4} left out {total('skipped'):5} skipped; "
        f"arena used {sum(outcome.uses for outcome in outcomes):6} times; "
        f"{sum(outcome.seconds for outcome in outcomes):5.0f} s"
    )


def report(outcome: Outcome) -> str:
    """The figures, what differs and why, and what is wrong."""
    lines = [line(outcome.suite.name, outcome)]
    for word, tests in (("differ", outcome.differs), ("left out", outcome.left_out)):
        for difference, number in Counter(tests.values()).items():
            lines.append(f"    {number} {word}: {difference.tests}: {difference.reason}")
    lines += ["    UNEXPLAINED: " + trouble.replace("\n", "\n        ") for trouble in outcome.troubles]
    return "\n".join(lines)
