"""What does a trace that is being recorded add to the shortest things there are?

Per region, call, task or node, with a trace and without; off, it is one load of a flag, which no two runs of one
build could show. The bound of 2 % is for work as short as people have it: a region of some microseconds, a Joblib
task, a Dask node. An empty region costs about the tenth part of a microsecond, and some ns more.
"""

from .harness import OURS, Case, Peer, Question

CASES = {
    "region": "empty region, from compiled code",
    "small_region": "region of some us, from compiled code",
    "call": "empty region, called from Python",
    "joblib": "empty Joblib task",
    "map_calls": "empty call of Executor.map",
    "dask": "empty node of a Dask graph of 10,000",
}

QUESTION = Question(
    name="trace_cost",
    text="cost of recording, wall and CPU by that without",
    cases=tuple(Case(text, "trace_cost.py", (name,)) for name, text in CASES.items()),
    peers=(Peer(OURS, extra=("off",)), Peer("recorded", extra=("on",))),
    timeout=120.0,
)
