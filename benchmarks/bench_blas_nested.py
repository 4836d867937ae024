"""How long does a nested program take whose tasks call NumPy, SciPy or scikit-learn, which bring pools of their own?

Peers: the stock program, and every library pinned to one thread by hand, the usual cure.
"""

from .harness import OURS, Case, Peer, Question, pinned

NAMES = ("pool_qr", "pool_eig", "pool_matmul", "tail_matmul", "dask_qr", "joblib_boosting", "pool_kmeans")

QUESTION = Question(
    name="blas_nested",
    text="pools of two threads whose tasks call OpenBLAS or OpenMP",
    cases=tuple(Case(name, "nested.py", (name, "2")) for name in NAMES),
    peers=(
        Peer(OURS, launcher=("-m", "composable_threads")),
        Peer("stock"),
        Peer("pinned", pinned()),
    ),
)
