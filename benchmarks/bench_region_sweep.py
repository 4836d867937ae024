"""How long does a balanced Numba region take, from half a microsecond of work to 50 ms, back to back?

omp is at its best here in the middle, where its workers still spin when the next region comes; tbb above.
"""

from .bench_regions import PEERS
from .harness import Case, Question

# About 8 ns of work an element on the machine this was written on.
SIZES = (60, 190, 560, 1_700, 5_000, 15_000, 46_000, 137_000, 410_000, 1_240_000, 6_000_000)

QUESTION = Question(
    name="region_sweep",
    text="balanced regions of 0.5 us to 50 ms of work, back to back, P = 2",
    cases=tuple(Case(f"{size:,} elements", "regions.py", ("sweep", str(size))) for size in SIZES),
    peers=PEERS,
)
