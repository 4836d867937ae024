"""What does a container with a CPU quota on a large host cost nested Numba programs?

Every library believes in 32 CPUs and pools have 32 threads, while two CPUs are there. Ours is compared with itself in
a pool of two where nothing lies, and with stock under a time limit.
"""

from .harness import OURS, Case, Peer, Question
from .shim import believe_in

QUESTION = Question(
    name="numba_container",
    text="the same programs where libraries believe in 32 CPUs and two are there; base: ours where nothing lies",
    cases=tuple(Case(name, "nested.py", (name,)) for name in ("dask_numba", "joblib_numba", "pool_numba")),
    peers=(
        Peer(OURS, launcher=("-m", "composable_threads"), extra=("2",)),
        Peer("composable, 32", believe_in(32, 2), ("-m", "composable_threads"), ("32",)),
        Peer("omp, 32", believe_in(32, 2) | {"NUMBA_THREADING_LAYER": "omp"}, extra=("32",)),
    ),
)
