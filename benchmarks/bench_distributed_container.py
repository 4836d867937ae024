"""The same tasks on one worker where libraries, and Dask, believe in 32 CPUs and two are there.

Base: ours where nothing lies. The bound: it finishes, within 1.15 of that.
"""

from .harness import OURS, Case, Peer, Question
from .shim import believe_in

QUESTION = Question(
    name="distributed_container",
    text="tasks on a worker in a container of two CPUs on a host of 32; base: ours on two threads where nothing lies",
    cases=tuple(Case(name, "cluster.py", (name, "1")) for name in ("numba", "qr", "boosting")),
    peers=(
        Peer(OURS, extra=("2", "composable")),
        Peer("composable, 32", believe_in(32, 2), extra=("32", "composable")),
        Peer("stock, 32", believe_in(32, 2), extra=("32", "stock")),
        Peer("stock, 32, free", believe_in(32, 2), extra=("32", "free")),
    ),
    timeout=120.0,
)
