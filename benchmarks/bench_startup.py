"""What does the hook that makes `composable` known cost at interpreter start?

Base: a bare virtual environment with the hook. Peer: one without it.
"""

from .harness import OURS, Case, Peer, Question

QUESTION = Question(
    name="startup",
    text="a fresh interpreter that does nothing",
    cases=(Case("python -c pass", "startup.py"),),
    peers=(
        Peer(OURS, extra=("with",)),
        Peer("without the hook", extra=("without",)),
    ),
)
