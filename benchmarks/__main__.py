"""``python -m benchmarks [NAME...] [--case TEXT] [--rounds N] [--quick] [--json FILE]``"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from pathlib import Path

from .harness import BenchmarkError, Question, as_json, run, table


def questions() -> dict[str, str]:
    """Name of every benchmark and the first line of what it asks."""
    return {path.stem.removeprefix("bench_"): path.stem for path in sorted(Path(__file__).parent.glob("bench_*.py"))}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks named, or all; 0 only if everything was measured."""
    known = questions()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}; default: all")
    parser.add_argument("--case", metavar="TEXT", default="", help="only the cases whose name contains it")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every peer, each a fresh process (default 5)")
    parser.add_argument("--quick", action="store_true", help="one turn: does it run at all?")
    parser.add_argument("--json", metavar="FILE", help="save raw samples")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in known:
            parser.error(f"no benchmark {name!r}; there are: {', '.join(known)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    rounds = 1 if options.quick else options.rounds
    asked = [importlib.import_module(f".{known[name]}", __package__).QUESTION for name in options.names or known]
    cases = {case.name: None for question in asked for case in question.cases}
    if not any(options.case in case for case in cases):
        parser.error(f"no case with {options.case!r} in its name; there are: {'; '.join(cases)}")

    from tqdm import tqdm

    saved = []
    for question in (_narrowed(question, options.case) for question in asked):
        if not question.cases:
            continue
        total = len(question.cases) * len(question.peers) * rounds
        try:
            with tqdm(total=total, desc=question.name, leave=False, disable=not sys.stderr.isatty()) as progress:
                results = run(question, rounds, progress)
        except BenchmarkError as error:
            print(error, file=sys.stderr)
            return 1
        print(table(question, results), end="\n\n", flush=True)
        saved.append(as_json(question, results))
    if options.json:
        Path(options.json).write_text(json.dumps(saved, indent=1))
    return 0


def _narrowed(question: Question, text: str) -> Question:
    return dataclasses.replace(question, cases=tuple(case for case in question.cases if text in case.name))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
