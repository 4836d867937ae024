"""Joblib's processes: ``composable`` is known in them by name, and their arenas have the size that Joblib gave them."""

from __future__ import annotations

import pytest
from fresh import check_fresh

# In a file, which the children import; nothing in it imports this package before the name is used.
PROGRAM = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
Path("child.py").write_text('''
import os, sys
KNOWN = "composable_threads" in sys.modules
def look(i):
    from joblib import Parallel, delayed
    squares = Parallel(n_jobs=2, backend="composable")(delayed(pow)(i + j, 2) for j in range(3))
    import composable_threads
    info = composable_threads.info()
    left = {name: info[name] for name in ("open_tasks", "open_regions", "waiting")}
    return os.getpid(), KNOWN, squares, info["slots"], info["peak_running"] <= info["slots"], left
''')
import joblib
from joblib import Parallel, delayed, parallel_config
from child import look
def show(found):
    squares = [[i * i, (i + 1) ** 2, (i + 2) ** 2] for i in range(len(found))]
    pids, ways, answers, slots, within, left = zip(*found)
    assert os.getpid() not in pids and set(ways) == {False} and list(answers) == squares and all(within), found
    assert all(set(counts.values()) == {0} for counts in left), left
    print(*set(slots))
"""


def check_children(code: str, env: dict[str, str] | None = None) -> list[int]:
    """The sizes of the arenas in the children, as the code shows them."""
    return [int(size) for size in check_fresh(PROGRAM + code, env=env).split()]


def test_processes_of_loky_have_the_threads_that_joblib_gives_them():
    sizes = check_children("""
print(max(joblib.cpu_count() // 2, 1))
show(Parallel(n_jobs=2, backend="loky")(delayed(look)(i) for i in range(4)))
with parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
    show(Parallel()(delayed(look)(i) for i in range(4)))
assert "COMPOSABLE_NUM_THREADS" not in os.environ
""")
    assert sizes[0] == sizes[1] and sizes[2] == 1


def test_a_size_that_the_user_chose_is_kept_in_processes_of_loky():
    sizes = check_children(
        'show(Parallel(n_jobs=3, backend="loky")(delayed(look)(i) for i in range(4)))',
        env={"COMPOSABLE_NUM_THREADS": "1"},
    )
    assert sizes == [1]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_know_the_name_and_keep_nothing_of_the_parents_arena(method):
    # Joblib tells these no number of threads.
    sizes = check_children(
        """
show(Parallel(n_jobs=2, backend="multiprocessing")(delayed(look)(i) for i in range(4)))
assert "composable_threads" not in sys.modules
import threading, composable_threads
release, begun = threading.Event(), threading.Event()
def hold():
    begun.set()
    return release.wait(60)
with composable_threads.Executor() as executor:
    held = executor.submit(hold)
    assert begun.wait(60)
    found = Parallel(n_jobs=2, backend="multiprocessing")(delayed(look)(i) for i in range(4))
    release.set()
    assert held.result()
show(found)
print(composable_threads.info()["slots"])
""",
        env={"JOBLIB_START_METHOD": method},
    )
    assert len(set(sizes)) == 1
