"""BLAS and OpenMP libraries: how they are found, what `info()` says of them, spin limits, containers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

import pytest
from cgroups import Groups
from fresh import check_fresh

pytest.importorskip("sklearn")
from width_programs import run

PERIOD_OF_ONE_CPU = 100_000  # us of quota


def compiled(folder: Path, name: str, source: str | Path, *options: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    if isinstance(source, str):
        source, text = folder / "source.c", source
        source.write_text(text)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / name, source, *options], check=True)
    return folder / name


# --- finding them


def test_what_is_not_loaded_is_absent():
    code = """
    import composable_threads as ct
    print(sorted((row["kind"], row["path"], row["scope"], row["width"]) for row in ct.info()["libraries"]))
    print(ct.info()["advice"])
    """
    absent = [(kind, None, "absent", None) for kind in ("mkl", "openblas", "openmp")]
    assert check_fresh(code).splitlines() == [str(absent), "[]"]


def test_information_has_a_row_for_every_library():
    code = """
kinds = [(row["kind"], row["scope"], row["width"]) for row in ct.info()["libraries"]]
print(sorted(kinds, key=str))
import os
print({os.path.realpath(row["path"]) == row["path"] for row in ct.info()["libraries"] if row["path"]})
"""
    openblas = ("openblas", "process", 2)
    rows = [("mkl", "absent", None), openblas, openblas, ("openmp", "thread", 2)]
    assert run(code, 2).splitlines() == [str(rows), "{True}"]


def test_unknown_libraries_are_reported_and_left_alone(tmp_path):
    # One exports nothing that is known, the other only the half of it.
    odd = compiled(tmp_path, "libopenblas_odd.so", "int odd(void) { return 1; }")
    half = compiled(tmp_path, "libomp.so", "void omp_set_num_threads(int n) { __builtin_trap(); }")
    code = f"""
import ctypes, os
loaded = [ctypes.CDLL(path) for path in ({str(odd)!r}, {str(half)!r})]
together(3, numpy_width)
rows = {{os.path.basename(row["path"]): row for row in ct.info()["libraries"] if row["path"]}}
for name in ("libopenblas_odd.so", "libomp.so"):
    print(rows[name]["kind"], rows[name]["scope"], rows[name]["width"])
print(ct.info()["advice"] == [line for line in ct.info()["advice"] if "odd" not in line and "libomp" not in line])
"""
    assert run(code, 2).splitlines() == ["openblas unknown None", "openmp unknown None", "True"]


def test_a_library_that_only_needs_one_is_not_taken_for_it(tmp_path):
    real = compiled(
        tmp_path, "libomp-real.so", "void omp_set_num_threads(int n) {} int omp_get_max_threads() { return 3; }"
    )
    user = compiled(tmp_path, "libomp-user.so", "int user;", "-Wl,--no-as-needed", str(real))
    code = f"""
import ctypes, composable_threads as ct, os
ctypes.CDLL({str(user)!r})
print(sorted((os.path.basename(row["path"]), row["scope"]) for row in ct.info()["libraries"] if row["path"]))
"""
    assert check_fresh(code).strip() == "[('libomp-real.so', 'thread'), ('libomp-user.so', 'unknown')]"


def test_a_library_loaded_while_tasks_run_is_governed_in_the_next_ones(tmp_path):
    code = f"""
import ctypes, os, shutil
copy = shutil.copy(NUMPY, {str(tmp_path / "libopenblas_copy.so")!r})
found = {{}}
def load():
    library = ctypes.CDLL(copy)
    name = next(name for name in ("scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads",
                                  "openblas_get_num_threads64_", "openblas_get_num_threads") if hasattr(library, name))
    found["width"] = getattr(library, name)
held = threading.Event()
with ct.Executor(2) as executor:
    first = executor.submit(held.wait)
    executor.submit(load).result()
    before = found["width"]()
    deadline = time.monotonic() + 30
    while executor.submit(found["width"]).result() != 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    print(before, executor.submit(found["width"]).result(), executor.submit(numpy_width).result())
    held.set()
until(lambda: _native.counts()["running"] == 0)
print(found["width"](), [row["scope"] for row in ct.info()["libraries"] if row["path"] == os.path.realpath(copy)])
"""
    assert run(code, 2).splitlines() == ["2 1 1", "2 ['process']"]


# --- spin limits

GETENV = """
import ctypes, os
getenv = ctypes.CDLL(None).getenv  # as the libraries read it
getenv.restype = ctypes.c_char_p
names = [b"OPENBLAS_THREAD_TIMEOUT", b"KMP_BLOCKTIME", b"GOMP_SPINCOUNT"]
"""


def test_activation_sets_spin_limits_only_where_the_user_did_not():
    code = """
import composable_threads as ct
before = dict(os.environ)
with ct.activate():
    print(*map(getenv, names), dict(os.environ) == before)
print(*map(getenv, names))
"""
    out = check_fresh(GETENV + code, env={"KMP_BLOCKTIME": "200", "OMP_WAIT_POLICY": "active"})
    assert out.splitlines() == ["b'4' b'200' None True", "None b'200' None"]


def test_only_activation_sets_spin_limits():
    code = """
import composable_threads as ct, numpy
ct.Executor(2).submit(int).result()
print(*map(getenv, names))
"""
    assert check_fresh(GETENV + code).strip() == "None None None"


def test_running_a_program_under_m_sets_spin_limits(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(GETENV + "print(*map(getenv, names), any(name.decode() in os.environ for name in names))")
    done = subprocess.run(
        [sys.executable, "-m", "composable_threads", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "b'4' b'1' b'10000' False"


def test_openblas_heeds_the_limit_that_an_activation_sets():
    # CPU time of its idle helper after a product, in ns: 134 ms by default where the clock ticks at 2 GHz.
    code = """
import composable_threads as ct, pathlib, time
ct.activate()
import numpy
a = numpy.ones((400, 400))
def helpers():
    tasks = pathlib.Path("/proc/self/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks if int(task.name) != os.getpid())
a @ a
before = helpers()
time.sleep(0.4)
print(helpers() - before < 30_000_000)
"""
    assert check_fresh(GETENV + code).strip() == "True"


INFORM = """
import composable_threads as ct, json
def tell():
    info = ct.info()
    limits = sorted({(row["kind"], row["spin_limit"]) for row in info["libraries"] if row["path"]}, key=str)
    print(json.dumps([limits, [line.partition(":")[0] for line in info["advice"]]]))
"""


def told(code: str, **env: str) -> list:
    return [json.loads(line) for line in check_fresh(INFORM + textwrap.dedent(code), env=env).splitlines()]


def test_information_says_which_library_came_too_early_for_its_spin_limit():
    code = """
    import numpy
    tell()
    with ct.activate():
        tell()
        import scipy.linalg
        tell()
    tell()
    with ct.activate():
        tell()
    """
    before, active, more, *later = told(code, COMPOSABLE_NUM_THREADS="2")
    assert before == active
    ((kind, limit),) = before[0]
    assert (kind, limit) == ("openblas", None)
    assert ["openblas" in name for name in before[1]] == [True]
    # SciPy's own library was in time, also after the activation, and NumPy's is not in a later one either.
    assert more == [[["openblas", "OPENBLAS_THREAD_TIMEOUT=4"], ["openblas", None]], before[1]]
    assert later == [more, more]


def test_information_is_content_with_libraries_loaded_in_an_activation_and_with_the_users_own_limit():
    code = """
    with ct.activate():
        import numpy, sklearn.cluster
        tell()
    tell()
    """
    spin = [["openblas", "OPENBLAS_THREAD_TIMEOUT=4"], ["openmp", "GOMP_SPINCOUNT=10000"]]
    assert told(code) == [[spin, []]] * 2
    own = [["openblas", "OPENBLAS_THREAD_TIMEOUT=20"], ["openmp", "OMP_WAIT_POLICY=passive"]]
    assert told(code, OPENBLAS_THREAD_TIMEOUT="20", OMP_WAIT_POLICY="passive") == [[own, []]] * 2


def test_where_there_is_one_slot_there_are_no_helpers_to_spin():
    ((limits, advice),) = told("import numpy; tell()", COMPOSABLE_NUM_THREADS="1")
    assert limits and not any("spin" in text for text in advice)


# --- containers: libraries believe in more CPUs than P

CAPPED = """
import composable_threads as ct, ctypes, threading
def widths():
    return sorted({row["width"] for row in ct.info()["libraries"] if row["path"]})
def in_thread():
    out = []
    thread = threading.Thread(target=lambda: out.append(widths()))
    thread.start()
    thread.join()
    return out[0]
def in_tasks():
    with ct.Executor(4) as executor:
        return [task.result() for task in [executor.submit(widths) for _ in range(4)]]
"""


@pytest.fixture(scope="module")
def believe_in_32_cpus(tmp_path_factory):
    source = Path(__file__).parents[1] / "benchmarks" / "programs" / "fakecpu.c"
    library = compiled(tmp_path_factory.mktemp("shim"), "fakecpu.so", source, "-ldl")
    return {"LD_PRELOAD": str(library), "FAKE_NCPU": "32", "COMPOSABLE_NUM_THREADS": "2"}


@pytest.mark.parametrize("order", ["activated first", "imported first"])
def test_activation_keeps_widths_at_p_on_every_thread(believe_in_32_cpus, order):
    load, activate = "import numpy, scipy.linalg, sklearn.cluster\n", "active = ct.activate()\n"
    code = """
print(widths(), in_thread(), widths())
assert max(width for seen in in_tasks() for width in seen) <= 2
print(widths(), in_thread())
active.deactivate()
print(widths())
"""
    code = CAPPED + (activate + load if order == "activated first" else load + activate) + code
    assert check_fresh(code, env=believe_in_32_cpus).splitlines() == ["[2] [2] [2]", "[2] [2]", "[32]"]


@pytest.mark.parametrize("how", ["import numpy, scipy.linalg", "ctypes.CDLL(path)"])
def test_activation_keeps_widths_at_p_that_are_first_seen_in_a_task(believe_in_32_cpus, how):
    code = f"""
import importlib.metadata
active = ct.activate()
path = next(str(file.locate()) for file in importlib.metadata.files("numpy") if "openblas" in file.name)
def load():
    {how}
with ct.Executor(2) as executor:
    held = threading.Event()
    running = executor.submit(held.wait)
    executor.submit(load).result()
    while executor.submit(widths).result() != [1]: pass  # found within some microseconds
    held.set()
while ct.info()["running"]: pass
print(widths())
active.deactivate()
print(widths())
"""
    assert check_fresh(CAPPED + code, env=believe_in_32_cpus).splitlines() == ["[2]", "[32]"]


def test_what_the_program_sets_in_an_activation_stays(believe_in_32_cpus):
    code = """
active = ct.activate()
import numpy
from threadpoolctl import ThreadpoolController
for library in ThreadpoolController().lib_controllers:
    library.set_num_threads(5)
import scipy.linalg  # brings another one
print(widths())
active.deactivate()
print(widths())
"""
    assert check_fresh(CAPPED + code, env=believe_in_32_cpus).splitlines() == ["[2, 5]", "[5, 32]"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_activation_keeps_widths_at_a_real_quota(version):
    code = """
with ct.activate():
    import numpy, scipy.linalg, sklearn.cluster
    info = ct.info()
    print(info["slots"], widths(), in_thread(), in_tasks())
print(widths() == [info["affinity"]])
"""
    with ExitStack() as undo:
        groups = Groups(version, undo)
        ambient = check_fresh("import os; print(len(os.sched_getaffinity(0)))")
        if int(ambient) < 2:
            pytest.skip("one CPU: libraries believe in no more than the quota gives")
        out = check_fresh(CAPPED + code, preexec_fn=Groups.joins(groups.make(PERIOD_OF_ONE_CPU)))
    assert out.splitlines() == ["1 [1] [1] [[1], [1], [1], [1]]", "True"]
