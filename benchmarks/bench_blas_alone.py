"""Does a single big product, with nothing around it, still use all cores?"""

from .harness import OURS, Case, Peer, Question, pinned

QUESTION = Question(
    name="blas_alone",
    text="one product of 1600 x 1600 on its own",
    cases=(Case("matmul 1600", "nested.py", ("alone_matmul", "1")),),
    peers=(
        Peer(OURS, launcher=("-m", "composable_threads")),
        Peer("stock"),
        Peer("pinned", pinned()),
    ),
)
