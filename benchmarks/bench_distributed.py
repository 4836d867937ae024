"""How long does a nested task take on workers of dask.distributed, and what does a trivial one cost there?

Peers: stock workers, whose nanny sets BLAS and OpenMP to one thread but not Numba; the same with Numba pinned by hand
too; and stock without the nanny's widths. The bounds: within 1.05 of the better of the first two, at most 0.6 of the
last one; a trivial task at most 1.05 of stock's.
"""

from .harness import OURS, Case, Peer, Question

SHAPES = (("1", "2"), ("2", "1"))

QUESTION = Question(
    name="distributed",
    text="wall time of one task on worker processes of dask.distributed",
    cases=tuple(
        Case(f"{name}, {processes} x {threads}", "cluster.py", (name, processes, threads))
        for name in ("numba", "qr", "boosting", "trivial")
        for processes, threads in SHAPES
    ),
    peers=(
        Peer(OURS, extra=("composable",)),
        Peer("stock", extra=("stock",)),
        Peer("stock, pinned", {"NUMBA_NUM_THREADS": "1"}, extra=("stock",)),
        Peer("stock, free", extra=("free",)),
    ),
    timeout=120.0,
)
