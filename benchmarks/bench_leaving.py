"""How soon does a program end behind its last line, and how soon does Ctrl-C reach it?

`exit`: wall time from the end of the program's own code to that of the process. `ctrl-c`: from the signal to
KeyboardInterrupt in the caller; the tasks, and the iterations of the region, take 10 ms. Peer: the same program with
stock threads, where a Numba region is not interrupted at all.
"""

from .harness import OURS, Case, Peer, Question

CASES = {
    "exit": ("idle", "queued", "daemon", "error", "generator"),
    "ctrl-c": ("region", "joblib", "joblib_generator", "dask", "executor"),
}

QUESTION = Question(
    name="leaving",
    text="end of the program's code to end of the process; signal to KeyboardInterrupt",
    cases=tuple(Case(f"{kind}, {name}", "leaving.py", (kind, name)) for kind, names in CASES.items() for name in names),
    peers=(
        Peer(OURS, {"NUMBA_THREADING_LAYER": "composable"}, ("-m", "composable_threads")),
        Peer("stock", {"NUMBA_THREADING_LAYER": "workqueue"}),
    ),
)
