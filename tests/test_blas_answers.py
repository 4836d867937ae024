"""Right answers of NumPy and SciPy when tasks call them at once and widths change around them."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("scipy")
pytest.importorskip("threadpoolctl")
from fresh import check_fresh

# Every task computes a few calls, in an order of its own. Between rounds the number of tasks changes, and within one it
# falls to 1 at the end, so calls of width 1 and 2 meet. What is right is what the main thread computed before, alone,
# with one thread.
PROGRAM = f"""
import random, sys, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
from blas_calls import CALLS, compute, same
from threadpoolctl import threadpool_limits
import composable_threads as ct
from composable_threads import _native
_native.configure(2)
modules, sizes, seconds, fewest = sys.argv[1].split("+"), (96, 160, 320), float(sys.argv[2]), int(sys.argv[3])
calls = [(module, name, n) for module in modules for name in CALLS[module] for n in sizes]
with threadpool_limits(1):
    right = {{call: compute(*call) for call in calls}}
wrong, done = set(), dict.fromkeys(calls, 0)

def task(mine):
    for call in mine:
        if not same(right[call], compute(*call)):
            wrong.add(call)
        done[call] += 1  # under the GIL; a lost one is no harm

rng, rounds = random.Random(0), 0
deck = []
deadline = time.monotonic() + seconds
while rounds < fewest or (time.monotonic() < deadline and min(done.values()) < 2):
    tasks = rng.choice((2, 3, 4, 8))
    hands = []
    for _ in range(tasks):
        if len(deck) < 3:
            deck += rng.sample(calls, len(calls))
        hands.append([deck.pop() for _ in range(3)])
    with ct.Executor(tasks) as executor:
        for future in [executor.submit(task, hand) for hand in hands]:
            future.result()
    rounds += 1
print(sorted(wrong), rounds >= fewest, min(done.values()) > 0)
assert max(row["width"] for row in ct.info()["libraries"] if row["path"]) == 2
"""


@pytest.mark.parametrize("modules", ["numpy", "scipy", "numpy+scipy"])
def test_calls_in_tasks_give_the_serial_answers(modules):
    out = check_fresh(PROGRAM, args=[modules, "15", "100"], env={"OPENBLAS_THREAD_TIMEOUT": "4"}, timeout=240)
    assert out.strip() == "[] True True"
