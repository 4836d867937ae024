"""``python -m tests.programs --programs N [--seed S] [--size P]``."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds what the tests share

from .grammar import walk
from .runner import BATCH, SIZES, generate, report, run, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.programs", description="Run random nested programs.")
    parser.add_argument("--programs", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="default: a new one")
    parser.add_argument("--size", type=int, action="append", metavar="P", help="of the arena; default: 1, 2, 3, 4, 8")
    parser.add_argument("--batch", type=int, default=BATCH, metavar="B", help="programs in one process")
    parser.add_argument("--no-shrink", action="store_true", help="print failures as they are")
    options = parser.parse_args()
    number = random.randrange(1 << 32) if options.seed is None else options.seed
    made = generate(options.programs, number)
    print(f"seed {number}: {len(made)} programs, {sum(len(walk(program)) for program in made)} nodes", flush=True)
    figures = run(made, options.size or SIZES, batch=options.batch, say=True)
    if not options.no_shrink:
        # The first of a kind: the others are shrunk when it is mended.
        figures.failures[:1] = [shrink(failure, number, options.programs) for failure in figures.failures[:1]]
    print(*report(figures, number), sep="\n")
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
