"""The same programs where libraries believe in 32 CPUs and two are there, as under a CPU quota on a large host.

Base: ours where nothing lies. Stock gets a time limit, which it mostly needs.
"""

from .bench_blas_nested import NAMES
from .harness import OURS, Case, Peer, Question
from .shim import believe_in

QUESTION = Question(
    name="blas_container",
    text="nested BLAS and OpenMP in a container of two CPUs on a host of 32; base: ours where nothing lies",
    cases=tuple(Case(name, "nested.py", (name,)) for name in NAMES),
    peers=(
        Peer(OURS, launcher=("-m", "composable_threads"), extra=("2",)),
        Peer("composable, 32", believe_in(32, 2), ("-m", "composable_threads"), ("32",)),
        Peer("stock, 32", believe_in(32, 2), extra=("32",)),
    ),
)
