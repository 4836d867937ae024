"""Does a triangular loop need a chunk size? Ours with the default against ours with several chosen by hand."""

from .bench_regions import COMPOSABLE, OMP, TBB
from .harness import OURS, Case, Peer, Question

CHUNKS = (1, 10, 30, 100, 300, 1_000, 3_000)

QUESTION = Question(
    name="region_chunks",
    text="a triangular loop of 12,000 iterations, default chunk size against chosen ones, P = 2",
    cases=(Case("triangular", "regions.py", ("triangular",)),),
    peers=(
        Peer(OURS, COMPOSABLE),
        *(Peer(f"chunks of {chunk:,}", COMPOSABLE, extra=(str(chunk),)) for chunk in CHUNKS),
        *(Peer(f"tbb, chunks of {chunk:,}", TBB, extra=(str(chunk),)) for chunk in (100, 300)),
        Peer("omp", OMP),
        Peer("serial", OMP | {"NUMBA_NUM_THREADS": "1"}),
    ),
)
