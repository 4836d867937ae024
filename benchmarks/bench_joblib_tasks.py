"""What does a Joblib task cost that does nothing, and what a call of two tasks of a millisecond?

Rows by number of tasks show how the cost grows: wall time is per task. Peers: Joblib's threads and loky processes. loky
chooses batches of up to 2 s where the size is left to it, threads never batch.
"""

from .harness import OURS, Case, Peer, Question

COUNTS = (100, 1_000, 10_000, 100_000)

QUESTION = Question(
    name="joblib_tasks",
    text="Joblib, per trivial task of a call with n_jobs=2; and one call of two 1 ms tasks",
    cases=(
        *(Case(f"batch_size=1, {count:,} tasks", "joblib_tasks.py", ("unbatched", str(count))) for count in COUNTS),
        *(Case(f"default batches, {count:,} tasks", "joblib_tasks.py", ("trivial", str(count))) for count in COUNTS),
        Case("two 1 ms tasks", "joblib_tasks.py", ("pair", "2")),
    ),
    peers=(
        Peer(OURS, extra=("composable",)),
        Peer("threading", extra=("threading",)),
        Peer("loky", extra=("loky",)),
    ),
    timeout=120.0,
)
