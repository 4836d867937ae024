"""``%load_ext composable_threads``: the magics do what they say. What they measure is never asserted."""

from __future__ import annotations

import pytest
from fresh import check_fresh

SHELL = """
import os, sys
os.environ["IPYTHONDIR"] = os.getcwd()
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.colors = "NoColor" if hasattr(shell, "colors") else "nocolor"

def run(cell, fails=False):
    result = shell.run_cell(cell)
    assert result.success is not fails, cell
    return result.result

run("%load_ext composable_threads")
"""


def in_shell(code: str, **options) -> str:
    return check_fresh(SHELL + code, **options)


def test_import_of_the_package_loads_neither_the_magics_nor_ipython() -> None:
    code = """
import sys, composable_threads
print([name for name in sys.modules if name.partition(".")[0] in ("IPython", "argparse") or "magics" in name])
print(callable(composable_threads.load_ipython_extension), "composable_threads.magics" in sys.modules)
"""
    assert check_fresh(code) == "[]\nTrue True\n"


def test_activate_and_deactivate_open_and_close_the_doors() -> None:
    code = """
import concurrent.futures, threading
def where():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: threading.current_thread().name.startswith("ThreadPoolExecutor")).result()
seen = [where()]
for word in ("activate", "activate", "deactivate", "deactivate"):
    run("%composable " + word)
    seen.append(where())
print(seen)
"""
    lines = in_shell(code, env={"COMPOSABLE_NUM_THREADS": "1"}).splitlines()
    assert lines == ["active, 1 slots", "active, 1 slots", "[True, False, False, True, True]"]


def test_size_is_that_of_the_arena() -> None:
    code = "run('%composable activate -p 1')\nrun('facts = %composable')\nprint(shell.user_ns['facts']['slots'])"
    assert in_shell(code).splitlines() == ["active, 1 slots", "1"]


def test_info_is_what_info_returns_and_is_the_default() -> None:
    code = """
import composable_threads
run("a = %composable info")
run("b = %composable")
print(shell.user_ns["a"] == shell.user_ns["b"] == composable_threads.info())
"""
    assert in_shell(code) == "True\n"


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("%composable start", "invalid choice: 'start'"),
        ("%composable activate -p 0", "argument -p: must be a positive integer, not '0'"),
        ("%composable info -p 2", "-p goes with activate only"),
        ("%%composable_compare --rounds none\n1", "argument --rounds: must be a positive integer, not 'none'"),
        ("%%composable_compare -o a.b\n1", "argument -o: must be the name of a variable, not 'a.b'"),
        ("%%composable_compare\nif", "SyntaxError"),
        ("%%composable_compare\nraise KeyError('why')", "the stock run of round 1 ended with exit code 1"),
        ("%%composable_compare\nraise KeyError('why')", "KeyError: 'why'"),
    ],
)
def test_mistakes_are_told(cell: str, told: str) -> None:
    assert told in told_by(cell)


def test_environment_that_makes_no_sense_is_told() -> None:
    told = told_by("%composable activate", env={"COMPOSABLE_NUM_THREADS": "two"})
    assert "UsageError: COMPOSABLE_NUM_THREADS" in told and "Traceback" not in told


def told_by(cell: str, **options) -> str:
    code = f"""
import contextlib, io
text = io.StringIO()
with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
    run({cell!r}, fails=True)
print(text.getvalue())
"""
    return in_shell(code, **options)


def test_cell_is_run_both_ways_and_shown() -> None:
    code = """
open("beside.py", "w").write("WORD = 'found'")
cell = '''import sys, beside
STOCK = "composable_threads" not in sys.orig_argv
assert beside.WORD == "found" and "shell" not in globals() and __name__ == "__main__"
assert STOCK or sys.orig_argv[-3:-1] == ["-p", "1"], sys.orig_argv
open("runs", "a").write("s" if STOCK else "c")
print("kept back")
'''
found = run("%%composable_compare --rounds 2 -p 1 -o kept\\n" + cell)
assert found is shell.user_ns["kept"] is shell.user_ns["_"]
assert [len(found.stock), len(found.composable)] == [2, 2] and found.stock[0].wall_seconds > 0
print(open("runs").read(), [line.split()[0] for line in repr(found).splitlines()[1:]])
"""
    out = in_shell(code)
    assert "kept back" not in out
    assert out.splitlines()[-1] == "scsc ['stock', 'composable', 'ratio']"


def test_run_that_takes_too_long_is_given_up() -> None:
    code = """
found = run("%%composable_compare --timeout 0.5 --rounds 2\\nimport time; time.sleep(60)")
print(found.stock[0].finished, len(found.stock), found.composable[0].finished, "not finished" in repr(found))
"""
    assert in_shell(code).splitlines()[-1] == "False 1 False True"


def test_interrupt_ends_the_run_and_not_the_shell() -> None:
    code = """
import signal, threading, time
def interrupt():
    while not os.path.exists("pid"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
run("%%composable_compare\\nimport os, time\\nopen('part', 'w').write(str(os.getpid()))\\n"
    "os.rename('part', 'pid')\\ntime.sleep(60)", fails=True)
print(os.path.exists(f"/proc/{open('pid').read()}"), run("1 + 1"))
"""
    assert in_shell(code, allow_stderr=True).splitlines()[-1] == "False 2"


def test_unloading_takes_the_magics_away_and_ends_the_activation() -> None:
    code = """
import composable_threads
run("%composable activate")
run("%reload_ext composable_threads")
active = [composable_threads.info()["active"]]
run("%composable activate")
run("%unload_ext composable_threads")
active.append(composable_threads.info()["active"])
print(active, [kind for kind in ("line", "cell") for name in shell.magics_manager.magics[kind] if "composable" in name])
"""
    assert in_shell(code).splitlines()[-1] == "[False, False] []"
