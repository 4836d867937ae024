"""How long does a balanced Numba region take, from half a microsecond of work to 50 ms, back to back?

omp is at its best here in the middle, where its workers still spin when the next region comes; tbb above.
"""

from .bench_regions import PEERS
from .harness import Case, Question

# About 2.2 ns of work an element on the machine this was written on.
SIZES = (230, 700, 2_000, 6_000, 18_000, 55_000, 165_000, 500_000, 1_500_000, 4_500_000, 23_000_000)

QUESTION = Question(
    name="region_sweep",
    text="balanced regions of 0.5 us to 50 ms of work, back to back, P = 2",
    cases=tuple(Case(f"{size:,} elements", "regions.py", ("sweep", str(size))) for size in SIZES),
    peers=PEERS,
)
