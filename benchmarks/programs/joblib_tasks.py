"""Joblib calls with tasks that do next to nothing: ``joblib_tasks.py trivial|unbatched|pair COUNT BACKEND``."""

from __future__ import annotations

import sys
import time

from joblib import Parallel, delayed
from measure import measure

TASKS = 30_000  # about so many are measured altogether


def nothing(_):
    return None


def trivial(backend, count, **options):
    return lambda: Parallel(2, backend=backend, **options)(delayed(nothing)(i) for i in range(count))


def unbatched(backend, count):
    return trivial(backend, count, batch_size=1)


def pair(backend, _):
    """Two tasks of a millisecond."""
    return lambda: Parallel(2, backend=backend)(delayed(time.sleep)(0.001) for _ in range(2))


def end_workers():
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(kill_workers=True)


if __name__ == "__main__":
    kind, count, backend = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    run = globals()[kind](backend, count)
    rounds = 50 if kind == "pair" else max(1, min(50, TASKS // count))
    measure(run, rounds, 1 if kind == "pair" else count, end_workers if backend == "loky" else None)
