"""The programs of the literature on composability, scaled to two cores.

Peers: stock, every library pinned to one thread by hand, and the predecessor `python -m tbb`, which reaches
``ThreadPool`` and Numba's tbb layer, not OpenBLAS nor Dask.
"""

from .harness import OURS, Case, Peer, Question, pinned, tbb_on_path

CASES = {
    "eig, balanced": "eig_balanced",
    "matmul and eig, unbalanced": "eig_unbalanced",
    "small QR": "qr_small",
    "matmul, balanced": "matmul_balanced",
    "Dask QR, balanced": "dask_qr_balanced",
    "Dask QR, unbalanced": "dask_qr_unbalanced",
    "recommender": "recommender",
}

QUESTION = Question(
    name="shapes",
    text="the programs of the literature, scaled to two cores",
    cases=tuple(Case(name, "shapes.py", (case,)) for name, case in CASES.items()),
    peers=(
        Peer(OURS, launcher=("-m", "composable_threads")),
        Peer("stock", {"NUMBA_THREADING_LAYER": "omp"}),
        Peer("pinned", pinned(NUMBA_THREADING_LAYER="omp")),
        Peer("python -m tbb", tbb_on_path(), ("-m", "tbb"), needs="tbb"),
    ),
)
