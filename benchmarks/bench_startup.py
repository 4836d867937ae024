"""What does the hook that makes `composable` known cost at interpreter start?

Base: the same interpreter with the hook. Peers: without it (COMPOSABLE_AUTOLOAD=0 skips its work, -S all of site).
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
