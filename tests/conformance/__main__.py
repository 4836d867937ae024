"""``python -m tests.conformance [numba|joblib|dask|sklearn ...] [--full]``, from the root of the repository."""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest's pythonpath does

from conformance.suites import Outcome, run

HOSTS = ("numba", "joblib", "dask", "sklearn")


def main(arguments: list[str] | None = None) -> int:
    """Run the suites; 0 only if nothing failed but what is expected to differ, and that did."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"of {', '.join(HOSTS)}; default: all")
    parser.add_argument("--full", action="store_true", help="everything, which takes hours; else under 5 minutes")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="suites whose name fits, such as 'numba par*'")
    parser.add_argument("--stock", action="store_true", help="with the stock threads, to compare (not for Numba)")
    parser.add_argument("--list", action="store_true", help="name the suites and run nothing")
    options = parser.parse_args(arguments)
    for host in options.hosts:
        if host not in HOSTS:
            parser.error(f"no host {host!r}; there are: {', '.join(HOSTS)}")
    part = "full" if options.full else "quick"
    suites = [
        suite
        for host in options.hosts or HOSTS
        for suite in importlib.import_module(f"conformance.{host}_suites").SUITES
        if suite.is_in(part) and fnmatch.fnmatch(suite.name, options.only)
    ]
    if not suites:
        parser.error(f"no suite of the {part} part is called {options.only!r}")
    if options.list:
        print(*(suite.name for suite in suites), sep="\n")
        return 0
    outcomes = []
    for suite in suites:
        outcomes.append(run(suite, stock=options.stock))
        print(report(outcomes[-1]), flush=True)
    print(line("total", *outcomes))
    return 1 if any(outcome.troubles for outcome in outcomes) else 0


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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
