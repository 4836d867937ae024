"""``activate()`` leads every door of a program to the arena, leaves what the program chose itself, and undoes it all."""

from __future__ import annotations

import re
import textwrap

import pytest
from composable_threads import activate
from fresh import check_fresh, run_fresh

# A task tells by this whether it is one of the arena's.
WHERE = """
import os, sys
def where(*_):
    native = sys.modules.get("composable_threads._native")
    return native is not None and native.task_depth() > 0
"""
USES = {
    "executor": """
        with ThreadPoolExecutor(2) as pool:
            print(pool.submit(where).result(), *pool.map(where, range(2)))
        class Mine(ThreadPoolExecutor):
            def submit(self, fn, *args, **kwargs):
                return super().submit(lambda: (fn(*args, **kwargs), "mine"))
        with Mine(2) as pool:
            print(pool.submit(where).result())
    """,
    "thread_pool": """
        with ThreadPool(2) as pool:
            print(pool.apply(where), *pool.map(where, range(2)))
        with multiprocessing.dummy.Pool(2) as pool:
            print(pool.apply(where))
    """,
    "joblib": """
        call = [joblib.delayed(where)() for _ in range(4)]
        print(all(joblib.Parallel(n_jobs=2)(call)), all(joblib.Parallel(n_jobs=2, backend="threading")(call)))
        print(all(joblib.Parallel(n_jobs=2, prefer="threads")(call)), any(joblib.Parallel()(call)))
        with joblib.parallel_config("threading", n_jobs=2):
            print(all(joblib.Parallel()(call)))
    """,
    "dask": """
        made = dask.delayed(where)()
        print(made.compute(), made.compute(scheduler="threads"), dask.persist(made, scheduler="threading")[0].compute())
        print(all(dask.array.ones(2, chunks=1).map_blocks(where, dtype=bool, meta=dask.array.ones(1)).compute()))
        with dask.config.set(scheduler="threads"):
            print(dask.bag.from_sequence([1]).map(where).compute())
    """,
    "numba": """
        @numba.njit(parallel=True)
        def total(n):
            sum = 0
            for i in numba.prange(n):
                sum += i
            return sum
        print(total(1000), numba.threading_layer())
    """,
}
IMPORTS = {
    "executor": "from concurrent.futures import ThreadPoolExecutor",
    "thread_pool": "from multiprocessing.pool import ThreadPool; import multiprocessing.dummy",
    "joblib": "import joblib",
    "dask": "import dask, dask.array, dask.bag",
    "numba": "import numba",
}
EXPECTED = {
    "executor": "True True True (True, 'mine')",
    "thread_pool": "True True True True",
    "joblib": "True True True False True",
    "dask": "True True True True [True]",
    "numba": "499500 composable",
}
ACTIVATE = "import composable_threads; composable_threads.activate()"


def program(*parts: str) -> str:
    return "\n".join(textwrap.dedent(part) for part in (WHERE, *parts))


@pytest.mark.parametrize("order", ["host_first", "host_last"])
@pytest.mark.parametrize("door", USES)
def test_door_leads_to_the_arena_in_either_order_of_import(door, order):
    imports = [IMPORTS[door], ACTIVATE]
    if order == "host_last":
        imports.reverse()
    out = check_fresh(program(*imports, USES[door]))
    assert " ".join(out.split()) == EXPECTED[door]


CHOICES = {
    "loky": "print(os.getpid() in joblib.Parallel(n_jobs=2, backend='loky')(joblib.delayed(os.getpid)() for _ in '12'))",
    "prefer": "print(os.getpid() in joblib.Parallel(n_jobs=2, prefer='processes')(joblib.delayed(os.getpid)() for _ in '12'))",
    "sequential": "print(*joblib.Parallel(n_jobs=2, backend='sequential')([joblib.delayed(where)()]))",
    "dask_sync": "print(dask.delayed(where)().compute(scheduler='sync'))",
    "dask_processes": "print(os.getpid() == dask.delayed(os.getpid)().compute(scheduler='processes'))",
    "dask_pool": "print(dask.delayed(where)().compute(pool=pool))",
    "executor_made_before": "print(pool.submit(where).result())",
    "thread_pool_made_before": "print(threads.apply(where))",
}


@pytest.mark.parametrize("choice", CHOICES)
def test_what_the_program_chose_itself_stays(choice):
    code = program(
        "import dask, joblib",
        "from concurrent.futures import ThreadPoolExecutor",
        "from multiprocessing.pool import ThreadPool",
        "pool, threads = ThreadPoolExecutor(1), ThreadPool(1)",
        ACTIVATE,
        CHOICES[choice],
        "threads.terminate()",
    )
    assert check_fresh(code) == "False\n"


@pytest.mark.parametrize("way", ["variable", "attribute"])
def test_numba_layer_that_the_program_names_stays(way):
    choose = "numba.config.THREADING_LAYER = 'workqueue'" if way == "attribute" else ""
    code = program(ACTIVATE, "import numba", choose, USES["numba"])
    env = {"NUMBA_THREADING_LAYER": "workqueue"} if way == "variable" else {}
    assert check_fresh(code, env=env) == "499500 workqueue\n"


def test_distributed_workers_keep_their_own_threads():
    # Their tasks look for the thread they run on: secede() in a thread of the arena would fail.
    code = """
        from distributed import Client, LocalCluster, worker_client
        import dask
        def nested(depth):
            if depth == 0:
                return [where()]
            with worker_client() as client:
                return sum(client.gather(client.map(nested, [depth - 1] * 3, pure=False)), [])
        with LocalCluster(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
            with Client(cluster) as client:
                print(client.submit(nested, 2).result(timeout=30), dask.delayed(where)().compute())
    """
    pytest.importorskip("distributed")
    assert check_fresh(program(ACTIVATE, code), allow_stderr=True) == f"{[False] * 9} False\n"


# --- the end of it

SNAPSHOT = """
import os, sys
def snapshot():
    owners = [sys.modules[name] for name in (
        "concurrent.futures.thread", "multiprocessing.pool", "joblib.parallel", "joblib._parallel_backends", "dask.base",
        "dask.threaded", "dask.local", "numba.np.ufunc.parallel", "os", "threading")]
    owners += [value for owner in list(owners) for value in vars(owner).values() if isinstance(value, type)]
    kept = {(repr(owner), name): value for owner in owners for name, value in vars(owner).items()}
    for name, table in (("dask", dask.base.named_schedulers), ("joblib", joblib.parallel.BACKENDS), ("env", os.environ)):
        kept.update({(name, key): value for key, value in table.items()})
    return kept
def differing(before, after):
    same = lambda key: key in before and key in after and (
        before[key] is after[key] or key[0] == "env" and before[key] == after[key])
    return sorted(str(key) for key in {*before, *after} if not same(key))
"""


def test_deactivation_puts_back_every_attribute_and_variable():
    code = program(
        "import joblib, dask, dask.array, numba, numba.np.ufunc.parallel, multiprocessing.pool, concurrent.futures.thread",
        "from composable_threads import activate",
        SNAPSHOT,
        """
        before = snapshot()
        print(differing(before, snapshot()))
        active = activate()
        print(len(differing(before, snapshot())) > 8)
        active.deactivate()
        print(differing(before, snapshot()))
        with activate(), activate():
            pass
        print(differing(before, snapshot()))
        print(dask.delayed(where)().compute(), any(joblib.Parallel(2, "threading")([joblib.delayed(where)()] * 4)))
        with concurrent.futures.ThreadPoolExecutor(1) as pool, multiprocessing.pool.ThreadPool(1) as threads:
            print(pool.submit(where).result(), threads.apply(where))
        """,
    )
    assert check_fresh(code).split("\n") == ["[]", "True", "[]", "[]", "False False", "False False", ""]


def test_numba_layer_is_left_to_numba_again_unless_it_was_launched():
    code = "from composable_threads import activate\nimport numba\nwith activate():\n    {}\n" + program(USES["numba"])
    used = check_fresh(code.format("numba.get_num_threads()")).split()
    unused = check_fresh(code.format("pass")).split()
    assert used == ["499500", "composable"] and unused[0] == "499500" and unused[1] != "composable"


def test_activations_nest_and_each_ends_once():
    import concurrent.futures as cf

    stock = cf.ThreadPoolExecutor.__init__
    first = activate()
    with activate() as second:
        assert cf.ThreadPoolExecutor.__init__ is not stock
        first.deactivate()
        first.deactivate()
        assert cf.ThreadPoolExecutor.__init__ is not stock
    assert cf.ThreadPoolExecutor.__init__ is stock
    second.deactivate()
    with pytest.raises(LookupError), activate():
        raise LookupError
    assert cf.ThreadPoolExecutor.__init__ is stock


def test_activations_may_come_at_every_line_of_another():
    # As those of a signal handler or a destructor do; in later rounds every third line begins one that stays for a while.
    code = program(
        "import itertools, os, joblib, dask, dask.array, numba, multiprocessing.pool, concurrent.futures.thread",
        "from composable_threads import activate",
        SNAPSHOT,
        """
        ours = (os.path.dirname(sys.modules["composable_threads"].__file__), "_composable_threads_boot.py")
        lines, kept = itertools.count(), []
        def at_a_line(frame, event, arg):
            if not frame.f_code.co_filename.startswith(ours[0]) and not frame.f_code.co_filename.endswith(ours[1]):
                return None
            if event == "line":
                with activate():
                    pass
                if next(lines) % 3 == 0 and number > 0:
                    kept.append(activate())
                    if len(kept) == 2:
                        kept.pop(0).deactivate()
            return at_a_line
        before = snapshot()
        for number in range(4):
            sys.settrace(at_a_line)
            active = activate()
            active.deactivate()
            sys.settrace(None)
            if kept:
                kept.pop().deactivate()
            print(next(lines) > 40, differing(before, snapshot()))
        with activate():
            print(dask.delayed(where)().compute(), len(differing(before, snapshot())) > 8)
        print(differing(before, snapshot()))
        """,
    )
    assert check_fresh(code).splitlines() == ["True []"] * 4 + ["True True", "[]"]


def test_pools_made_inside_outlive_the_activation():
    code = """
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        from multiprocessing.pool import ThreadPool
        from composable_threads import activate
        release, done = threading.Event(), []
        def task(i):
            release.wait()
            done.append(i)
        class Mine(ThreadPoolExecutor):
            __hash__ = None
        with activate():
            pools = [ThreadPoolExecutor(1), Mine(1)]
            cancelled = ThreadPoolExecutor(1)
            for pool in pools:
                for i in range(5):
                    pool.submit(task, i)
            first, *rest = [cancelled.submit(task, 0) for i in range(5)]
            threads = ThreadPool(2)
        while not first.running():
            time.sleep(0.001)
        for pool in pools:
            pool.submit(task, 5)
        threading.Timer(0.05, release.set).start()
        cancelled.shutdown(cancel_futures=True)
        print(first.done(), [future.cancelled() for future in rest], threads.map(abs, [-1]))
        for pool in pools:
            pool.shutdown()
            try:
                pool.submit(task)
            except RuntimeError as error:
                print(error)
        print(sorted(done))
        with activate():
            again = ThreadPoolExecutor(1)
            again.submit(task, 6)
        with again:
            pass
        print(done[-1])
    """
    refused = "cannot schedule new futures after shutdown\n"
    expected = sorted([*range(6), *range(6), 0])
    assert check_fresh(code) == f"True {[True] * 4} [1]\n{refused}{refused}{expected}\n6\n"


# --- slots


def test_slots_choose_the_size_at_most_what_the_process_may_use():
    code = """
        from composable_threads import activate, info
        most = info()["slots"]
        activate(slots={})
        import dask
        print(dask.delayed(int)().compute(), info()["slots"], most)
    """
    assert check_fresh(code.format(1)).split()[:2] == ["0", "1"]
    zero, slots, most = check_fresh(code.format(10**6)).split()
    assert (zero, slots) == ("0", most)


@pytest.mark.parametrize(("slots", "error", "text"), [
    (0, ValueError, "slots must be greater than 0"),
    (-2, ValueError, "slots must be greater than 0"),
    (1.5, TypeError, "slots must be a whole number or None, not 'float'"),
    ("2", TypeError, "slots must be a whole number or None, not 'str'"),
])  # fmt: skip
def test_bad_slots_are_refused_and_nothing_is_activated(slots, error, text):
    import concurrent.futures as cf

    stock = cf.ThreadPoolExecutor.__init__
    with pytest.raises(error, match=re.escape(text)):
        activate(slots=slots)
    assert cf.ThreadPoolExecutor.__init__ is stock


def test_second_size_is_refused_once_the_arena_runs():
    code = """
        from composable_threads import Executor, _native, activate
        _native.configure(2)
        with Executor() as pool:
            pool.submit(int).result()
        try:
            activate(slots=1)
        except RuntimeError as error:
            print(error)
        from concurrent.futures import ThreadPoolExecutor
        print(ThreadPoolExecutor.__init__.__module__)
    """
    text = "the arena already runs with 2 slots; its size is chosen before its first use"
    assert check_fresh(code) == f"{text}\nconcurrent.futures.thread\n"


def test_bad_variable_is_told_by_activate():
    code = (
        "from composable_threads import activate\ntry:\n    activate()\nexcept ValueError as error:\n    print(error)"
    )
    assert "COMPOSABLE_NUM_THREADS" in check_fresh(code, env={"COMPOSABLE_NUM_THREADS": "many"})


# --- the end of a process, its forks, its event loop: the same with the stock executor, ours, and the stock one
# activated

MAKERS = {
    "stock": "from concurrent.futures import ThreadPoolExecutor as make",
    "executor": "from composable_threads import Executor as make",
    "activated": f"{ACTIVATE}\nfrom concurrent.futures import ThreadPoolExecutor as make",
}
# Python 3.12 and later warn of every fork beside threads.
QUIET_FORKS = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
START = """
import atexit, os, sys, threading, time
done = []
atexit.register(lambda: print("atexit", sorted(done)))
def task(i):
    time.sleep(0.005)
    done.append(i)
pool = make(2)
"""
ENDS = {
    "queued": "for i in range(20): pool.submit(task, i)",
    "collected": "for i in range(9): pool.submit(task, i)\ndel pool",
    "not_waited_for": "for i in range(9): pool.submit(task, i)\npool.shutdown(wait=False)",
    "exit_code": "for i in range(9): pool.submit(task, i)\nsys.exit(7)",
    "exception": "for i in range(9): pool.submit(task, i)\nraise LookupError('end')",
    "os_exit": "pool.submit(time.sleep, 30)\nos._exit(3)",
    "lost_error": "pool.submit(task)",
    "printing": "pool = make(1)\nfor i in range(50): pool.submit(print, i, flush=True)",
    "made_at_exit": "@atexit.register\ndef late():\n    try: make(1).submit(task, 1)\n    except RuntimeError as e: print(e)",
    "timer": "release = threading.Event()\npool.submit(lambda: release.wait() and task(1))\n"
    "threading.Timer(0.05, release.set).start()",
    "thread_submits_late": "def late():\n    threading.main_thread().join()\n    time.sleep(0.05)\n"
    "    try: pool.submit(task, 1)\n    except RuntimeError: print('refused')\nthreading.Thread(target=late).start()",
    # A forked child that ends in the usual way would wait for the thread of faulthandler's watchdog.
    "fork": "import faulthandler\nfaulthandler.cancel_dump_traceback_later()\npool.submit(task, 1).result()\n"
    "child = os.fork()\nif child == 0:\n    done.clear()\n    with make(2) as inner: print(list(inner.map(abs, [-1, -2])))\n"
    "else: print(os.waitpid(child, 0)[1])",
    "fork_by_multiprocessing": "import multiprocessing\npool.submit(task, 1).result()\ndef child():\n    done.clear()\n"
    "    with make(2) as inner: print(list(inner.map(abs, [-1, -2])), flush=True)\n"
    "process = multiprocessing.get_context('fork').Process(target=child)\nprocess.start()\nprocess.join()\n"
    "print(process.exitcode)",
    "fork_in_a_task": "def fork():\n    child = os.fork()\n    if child == 0: os._exit(4)\n"
    "    return os.waitpid(child, 0)[1] >> 8\nprint(*pool.map(lambda _: fork(), range(5)))",
    "event_loop": """
import asyncio
async def main(executor):
    loop = asyncio.get_running_loop()
    print(sum(await asyncio.gather(*[loop.run_in_executor(executor, abs, -i) for i in range(100)])))
    try:
        await loop.run_in_executor(executor, lambda: 1 / 0)
    except ZeroDivisionError as error:
        print(error)
    try:
        await asyncio.wait_for(loop.run_in_executor(executor, time.sleep, 0.2), 0.01)
    except (TimeoutError, asyncio.TimeoutError):
        print("late")
    print(await asyncio.to_thread(abs, -1))
for executor in (pool, None):
    asyncio.run(main(executor))
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_process_behaves_as_with_the_stock_executor(end):
    seen = {}
    for kind, make in MAKERS.items():
        for size in (1, 2) if kind != "stock" else (0,):
            slots = f"from composable_threads import _native\n_native.configure({size})\n" if size else ""
            done = run_fresh(slots + make + START + ENDS[end], env=QUIET_FORKS)
            # Since 3.13 a traceback shows the lines of a program given by -c, of which this one's are not alike.
            stderr = re.sub(r'(File "<string>".*\n)(?:    .*\n)+', r"\1", re.sub(r"line \d+", "line", done.stderr))
            seen[kind, size] = done.returncode, done.stdout, stderr
    assert seen == dict.fromkeys(seen, seen["stock", 0])


@pytest.mark.parametrize("kind", ["executor", "activated"])
def test_executor_that_the_parent_used_works_in_a_forked_child(kind):
    # The stock one hangs there: its threads did not come along.
    code = """
        busy = threading.Event()
        def submit_on(): # so that a fork finds the locks of an executor held, sooner or later
            while not busy.is_set():
                pool.submit(int)
        thread = threading.Thread(target=submit_on)
        thread.start()
        codes = set()
        for _ in range(30):
            child = os.fork()
            if child == 0:
                os._exit(pool.submit(abs, -5).result(20) + sum(pool.map(abs, [-1, -1])))
            codes.add(os.waitpid(child, 0)[1] >> 8)
        busy.set()
        thread.join()
        print(codes)
    """
    assert check_fresh(MAKERS[kind] + START + textwrap.dedent(code), env=QUIET_FORKS) == "{7}\natexit []\n"
