"""The name ``composable`` works in Numba with no import of ours; who does not select it sees no difference."""

from __future__ import annotations

import pytest
from fresh import check_fresh, run_fresh

SELECTED = {"NUMBA_THREADING_LAYER": "composable"}

# Every public call; Numba makes some of them before its own entry points run.
CALLS = {
    "set_num_threads": "numba.set_num_threads(1)",
    "get_num_threads": "assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS",
    "get_thread_id": "assert numba.get_thread_id() == 0",
    "set_parallel_chunksize": "assert numba.set_parallel_chunksize(4) == 0",
    "get_parallel_chunksize": "assert numba.get_parallel_chunksize() == 0",
    "parallel_chunksize": """
with numba.parallel_chunksize(4):
    assert numba.get_parallel_chunksize() == 4
assert numba.get_parallel_chunksize() == 0
""",
    "njit": """
@numba.njit(parallel=True)
def total(n):
    found = 0
    for i in numba.prange(n):
        found += i
    return found

assert total(1000) == 499500
""",
    "njit_with_a_signature": """
@numba.njit("int64(int64)", parallel=True)
def total(n):
    found = 0
    for i in numba.prange(n):
        found += i
    return found

assert total(1000) == 499500
""",
    "vectorize": """
@numba.vectorize(["f8(f8)"], target="parallel")
def after(x):
    return x + 1

assert after(np.arange(1000.0)).sum() == 500500
""",
    "guvectorize": """
@numba.guvectorize(["void(f8[:], f8[:])"], "(n)->()", target="parallel")
def total(x, out):
    out[0] = x.sum()

assert (total(np.ones((100, 7))) == 7).all()
""",
    "jitted_get_num_threads": """
@numba.njit
def threads():
    return numba.get_num_threads()

assert threads() == numba.config.NUMBA_NUM_THREADS
""",
    "launch_threads": "import numba.np.ufunc.parallel as p; p._launch_threads()",
}

TELL_LAYER = """
import sys
print(numba.threading_layer())
"""

# What of ours, and of oneTBB, is in the process.
TRACES = """
import sys
print([name for name in ("composable_threads", "composable_threads._native") if name in sys.modules])
print("libtbb" in open("/proc/self/maps").read())
"""

START = "import numba, numpy as np\n"


@pytest.mark.parametrize("call", CALLS)
def test_variable_selects_the_layer_for_every_first_call(call):
    assert check_fresh(START + CALLS[call] + TELL_LAYER, env=SELECTED) == "composable\n"


@pytest.mark.parametrize("call", CALLS)
def test_config_selects_the_layer_for_every_first_call(call):
    select = "numba.config.THREADING_LAYER = 'composable'\n"
    assert check_fresh(START + select + CALLS[call] + TELL_LAYER) == "composable\n"


def test_layer_is_launched_where_numba_launches_at_import():
    env = {**SELECTED, "NUMBA_DYLD_WORKAROUND": "1"}
    assert check_fresh(START + TELL_LAYER, env=env) == "composable\n"


def test_layer_is_not_launched_before_it_is_needed():
    code = """
    import numba, sys
    @numba.njit(parallel=True)
    def nothing(n):
        return n
    try:
        numba.threading_layer()
    except ValueError as error:
        print(error)
    print("composable_threads" in sys.modules)
    """
    assert check_fresh(code, env=SELECTED) == "Threading layer is not initialized.\nFalse\n"


def test_launch_starts_no_thread():
    code = """
    import faulthandler, os
    faulthandler.cancel_dump_traceback_later()
    import numba
    before = len(os.listdir("/proc/self/task"))
    numba.get_num_threads()
    assert numba.threading_layer() == "composable"
    print(len(os.listdir("/proc/self/task")) - before)
    """
    assert check_fresh(code, env=SELECTED) == "0\n"


def test_first_calls_from_many_threads_launch_one_layer():
    code = """
    import threading
    import numba
    ready, found = threading.Barrier(16), []
    def first():
        ready.wait()
        found.append((numba.get_num_threads(), numba.get_thread_id(), numba.threading_layer()))
    threads = [threading.Thread(target=first) for _ in range(16)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert found == [(3, 0, "composable")] * 16, found
    """
    check_fresh(code, env={**SELECTED, "NUMBA_NUM_THREADS": "3"})


# --- those who select something else


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_other_layers_are_untouched(layer):
    code = START + CALLS["njit"] + TELL_LAYER + TRACES
    assert check_fresh(code, env={"NUMBA_THREADING_LAYER": layer}) == f"{layer}\n[]\nFalse\n"


@pytest.mark.parametrize("layer", ["default", "forksafe", "tbb", "nonsense"])
def test_the_hook_changes_nothing_for_who_does_not_select_it(layer):
    code = START + CALLS["njit"] + TELL_LAYER + TRACES
    stock, ours = (
        run_fresh(code, env={"NUMBA_THREADING_LAYER": layer, "COMPOSABLE_AUTOLOAD": autoload}) for autoload in "01"
    )
    assert stock.stdout == ours.stdout
    assert stock.returncode == ours.returncode
    assert "composable" not in ours.stdout
    last = [done.stderr.splitlines()[-1:] for done in (stock, ours)]
    assert last[0] == last[1]


def test_numbas_tbb_layer_loads_after_our_import():
    code = "import composable_threads\n" + START + CALLS["njit"] + TELL_LAYER
    assert check_fresh(code, env={"NUMBA_THREADING_LAYER": "tbb"}) == "tbb\n"


def test_a_launched_layer_stays():
    code = START + "numba.get_num_threads()\nnumba.config.THREADING_LAYER = 'composable'\n" + CALLS["njit"] + TELL_LAYER
    assert check_fresh(code, env={"NUMBA_THREADING_LAYER": "workqueue"}) == "workqueue\n"


# --- the three hooks


def test_opted_out_the_name_is_unknown_to_numba():
    done = run_fresh(START + CALLS["njit"], env={**SELECTED, "COMPOSABLE_AUTOLOAD": "0"})
    assert done.returncode == 1
    message = "ValueError: The threading layer requested 'composable' is unknown to Numba."
    assert done.stderr.splitlines()[-1].startswith(message)


@pytest.mark.parametrize("imports", ["composable_threads, numba", "numba, composable_threads"])
@pytest.mark.parametrize("call", ["get_num_threads", "njit"])
def test_opted_out_an_import_of_ours_registers_the_name(imports, call):
    code = f"import {imports}\nimport numpy as np\n" + CALLS[call] + TELL_LAYER
    assert check_fresh(code, env={**SELECTED, "COMPOSABLE_AUTOLOAD": "0"}) == "composable\n"


def test_registering_again_changes_nothing():
    code = """
    import numba.np.ufunc.parallel as parallel
    before = dict(vars(parallel))
    import _composable_threads_boot as boot
    import composable_threads
    for _ in range(3):
        boot.boot()
        boot.boot_from_site()
        boot.numba_init()
        boot.hook(parallel)
    assert vars(parallel) == before
    import sys
    assert sum(isinstance(finder, boot.HostFinder) for finder in sys.meta_path) == 1
    """
    check_fresh(code)


def test_isolated_interpreters_know_the_name():
    code = "import numba, sys; assert sys.flags.isolated; numba.get_num_threads(); print(numba.threading_layer())"
    check_fresh(f"""
    import subprocess, sys
    done = subprocess.run([sys.executable, "-I", "-c", {code!r}], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("composable\\n", ""), done
    """, env=SELECTED)  # fmt: skip


def test_without_site_the_entry_point_registers_the_name():
    # No .pth file is read under -S; Numba runs entry points before it compiles or loads.
    code = START + CALLS["njit"] + TELL_LAYER
    check_fresh(f"""
    import os, subprocess, sys, sysconfig
    paths = [path for path in sys.path if path] + [sysconfig.get_path("purelib")]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    done = subprocess.run([sys.executable, "-S", "-c", {code!r}], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("composable\\n", ""), done
    """, env=SELECTED)  # fmt: skip


@pytest.mark.parametrize("variable", ["COMPOSABLE_NUM_THREADS", "COMPOSABLE_DETERMINISTIC"])
def test_bad_variables_are_errors_and_not_crashes(variable):
    done = run_fresh(START + "numba.get_num_threads()", env={**SELECTED, variable: "many"})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ValueError: {variable} must be")
