"""``python -m tests.conformance [numba|joblib|dask|distributed|sklearn ...] [--full]``, from the root of the repository."""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest's pythonpath does

from conformance import distributed_suites
from conformance.report import line, report
from conformance.suites import run

HOSTS = ("numba", "joblib", "dask", "distributed", "sklearn")


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
    hosts = options.hosts or HOSTS
    if "distributed" in hosts and not distributed_suites.is_there():
        missing = "distributed's packages have no tests: CONFORMANCE_DISTRIBUTED must name a checkout of its repository"
        if options.hosts:
            parser.error(missing)
        print(f"{missing}; left out", file=sys.stderr)
        hosts = tuple(host for host in hosts if host != "distributed")
    part = "full" if options.full else "quick"
    suites = [
        suite
        for host in hosts
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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
