"""A program run by `python -m composable_threads` behaves as under plain Python: it is run both ways and compared."""

from __future__ import annotations

import json
import os
import py_compile
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

OURS = (sys.executable, "-m", "composable_threads")
PLAIN = (sys.executable,)


def run(command: tuple[str, ...], *words: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    given = options.pop("input", b"")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    words = (*command, *words)
    with subprocess.Popen(words, cwd=cwd, stdin=subprocess.PIPE, start_new_session=True, **options) as process:
        try:
            out, err = process.communicate(given, timeout=60)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # its children too
            raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def assert_same(
    *words: str, cwd: Path, flags: tuple[str, ...] = (), **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Both ways give the same stdout, stderr and exit code; returns plain Python's, for the test to look into."""
    plain = run((*PLAIN, *flags), *words, cwd=cwd, **options)
    ours = run((sys.executable, *flags, *OURS[1:]), *words, cwd=cwd, **options)
    assert without_addresses(ours) == without_addresses(plain)
    return plain


def without_addresses(done: subprocess.CompletedProcess[bytes]) -> tuple[bytes, bytes, int]:
    out, err = (re.sub(rb"\b0x[0-9a-f]+", b"0x", stream or b"") for stream in (done.stdout, done.stderr))
    return out, err, done.returncode


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


STARTS = {
    "globals": "print([(k, v) for k, v in globals().items() if k != '__loader__'], type(__loader__), __loader__.name)",
    "main_is_in_sys_modules": "import sys\nprint(vars(sys.modules['__main__']) is globals())",
    "main_guard": "def f():\n    return __name__\nif __name__ == '__main__':\n    print(f(), f.__module__)",
    "argv": "import sys\nprint(sys.argv)",
    "path": "import sys\nprint(sys.path)",
    "neighbour": "import neighbour\nprint(neighbour.__file__)",
    "environment": "import os\nprint(sorted(os.environ.items()))",
    "stdin": "import sys\nprint(input(), sys.stdin.read())",
    "type_hints": "import typing\nclass A:\n    x: 'A'\nprint(typing.get_type_hints(A))",
    "annotations": "y: int = 3\nprint(__annotations__)",
    "dataclass": "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\nprint(A(3))",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A, pickle.dumps(A))",
    "future_is_not_inherited": "def f(x: int): pass\nprint(f.__annotations__)",
    "warning": "import warnings\nwarnings.warn('w')\nwarnings.warn('d', DeprecationWarning)",
    "syntax_warning": "x = 1 is 1\nprint('\\d')",
    "latin_1": "# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))".encode("latin-1"),
    "byte_order_mark": b"\xef\xbb\xbfprint(1)\r\nprint(2)\r\n",
    "empty": "",
}
ENDS = {
    "nothing": "pass",
    "exit_none": "import sys\nsys.exit()",
    "exit_code": "import sys\nsys.exit(7)",
    "exit_large": "import sys\nsys.exit(256 + 3)",
    "exit_text": "import sys\nprint('out')\nsys.exit('text \u00e9')",
    "exit_object": "raise SystemExit({'a': [1]})",
    "exit_tuple": "raise SystemExit(1, 2)",
    "exit_in_function": "def f():\n    try:\n        raise SystemExit(3)\n    finally:\n        print('finally')\nf()",
    "os_exit": "import os\nprint('flushed?', end='')\nos._exit(5)",
    "exception": "print('out')\ndef f(x):\n    return 1 / x\nf(0)",
    "cause": "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('b') from e",
    "context": "class E(Exception): pass\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    raise E('own')",
    "reraised": "def f():\n    raise OSError(2, 'x')\ntry:\n    f()\nexcept OSError as e:\n    error = e\nraise error",
    "imported": "import json\njson.loads('{')",
    "base_exception": "class B(BaseException): pass\nraise B",
    "generator_exit": "raise GeneratorExit",
    "bad_str": "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E",
    "keyboard_interrupt": "import os, signal\nprint('out')\nos.kill(os.getpid(), signal.SIGINT)\nprint('not here')",
    "keyboard_interrupt_raised": "import atexit\natexit.register(print, 'bye')\nraise KeyboardInterrupt('why')",
    "keyboard_interrupt_subclass": "class K(KeyboardInterrupt): pass\nraise K",
    "keyboard_interrupt_caught": "try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n    print('caught')",
    "keyboard_interrupt_in_string_caught": (
        "try:\n    exec('raise KeyboardInterrupt')\nexcept KeyboardInterrupt:\n    raise SystemExit(4)"
    ),
    "signal": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "hook": (
        "import sys\ndef hook(*error):\n    print(error, error[2].tb_lineno, error[2].tb_next, sys.exc_info())\n"
        "sys.excepthook = hook\n1 / 0"
    ),
    "hook_exits": "import sys\ndef hook(*a):\n    sys.exit(9)\nsys.excepthook = hook\nraise KeyboardInterrupt",
    "hook_fails": "import sys\ndef hook(*a):\n    {}['hook']\nsys.excepthook = hook\n1 / 0",
    "hook_missing": "import sys\ndel sys.excepthook\n1 / 0",
    "last": (
        "import atexit, sys\nlast = lambda: (sys.last_type, sys.last_value, sys.last_traceback.tb_frame)\n"
        "atexit.register(lambda: print(last()))\n1 / 0"
    ),
    "stderr_none": "import sys\nsys.stderr = None\nprint('x')\n1 / 0",
    "atexit_order": (
        "import atexit\nfor n in range(3):\n    atexit.register(print, 'bye', n)\n"
        "atexit.register(lambda: print(sorted(globals()), __name__))\nprint('end')"
    ),
    "atexit_after_exit": "import atexit, sys\natexit.register(lambda: print(sorted(globals())))\nsys.exit(2)",
    "atexit_after_error": "import atexit, sys\natexit.register(lambda: print(sorted(globals())))\n1 / 0",
    "atexit_fails": "import atexit\natexit.register(lambda: 1 / 0)",
    "main_in_atexit": (
        "import atexit, pickle, sys\nclass A: pass\n"
        "atexit.register(lambda: print(pickle.loads(pickle.dumps(A)), sys.modules['__main__'].A is A))"
    ),
    "finaliser": (
        "class A:\n    def __init__(self, n): self.n = n\n    def __del__(self): print('del', self.n)\n"
        "b, a = A(1), A(2)\nprint('end')"
    ),
    "thread": (
        "import threading, time\ndef late():\n    time.sleep(0.3)\n    print('late', sorted(globals()), __name__)\n"
        "threading.Thread(target=late).start()\nprint('end')"
    ),
    "thread_after_error": (
        "import threading, time\ndef late():\n    time.sleep(0.3)\n    print('late')\n"
        "threading.Thread(target=late).start()\n1 / 0"
    ),
    "thread_fails": "import threading\ndef f(): 1 / 0\nt = threading.Thread(target=f, name='n')\nt.start()\nt.join()",
    "daemon": "import threading, time\nthreading.Thread(target=time.sleep, args=(100,), daemon=True).start()",
    "fork": "import os, sys\npid = os.fork()\nif not pid:\n    sys.exit(3)\nprint(os.waitpid(pid, 0)[1])",
}
BROKEN = {
    "syntax": "x = 1\nprint((1, 2)\ny = = 3\n",
    "warning_and_syntax": "x = '\\d'\nx = = 1\n",
    "indentation": "if 1:\nx = 1\n",
    "no_last_newline": "if 1:",
    "return": "return 1\n",
    "null_byte": b"x = (1\n\0y = 2\n",
    "not_utf_8": b"# a\nx = '\xff'\n",
    "unknown_encoding": b"# -*- coding: nonsense -*-\nx = 1\n",
}


@pytest.mark.parametrize("name", [*STARTS, *ENDS, *BROKEN])
def test_program_behaves_as_under_plain_python(name: str, tmp_path: Path) -> None:
    write(tmp_path, "neighbour.py", "")
    write(tmp_path, "program.py", {**STARTS, **ENDS, **BROKEN}[name])
    assert_same("program.py", "-p", "x", "--help", "-m", "", cwd=tmp_path, input=b"one\ntwo\nthree")


@pytest.mark.parametrize("name", [*STARTS, *ENDS, *BROKEN])
def test_module_behaves_as_under_plain_python(name: str, tmp_path: Path) -> None:
    write(tmp_path, "neighbour.py", "")
    write(tmp_path, "program.py", {**STARTS, **ENDS, **BROKEN}[name])
    assert_same("-m", "program", "-p", "x", "--help", cwd=tmp_path, input=b"one\ntwo\nthree")


@pytest.mark.parametrize("name", ["exit_text", "exception", "hook", "thread_after_error", "keyboard_interrupt"])
def test_both_streams_in_one_file_keep_their_order(name: str, tmp_path: Path) -> None:
    write(tmp_path, "program.py", ENDS[name])
    assert_same("program.py", cwd=tmp_path, stderr=subprocess.STDOUT)
    assert_same("-m", "program", cwd=tmp_path, stderr=subprocess.STDOUT)


def test_traceback_is_the_one_plain_python_prints(tmp_path: Path) -> None:
    write(tmp_path, "program.py", ENDS["exception"])
    plain = assert_same("program.py", cwd=tmp_path)
    assert plain.stderr.splitlines()[1].endswith(b'program.py", line 4, in <module>')
    assert plain.returncode == 1


def test_unhandled_ctrl_c_ends_the_process_by_sigint(tmp_path: Path) -> None:
    write(tmp_path, "program.py", ENDS["keyboard_interrupt"])
    assert run(OURS, "program.py", cwd=tmp_path).returncode == -signal.SIGINT


LOOK = "import sys\nprint(sys.argv, sys.path, __file__, __spec__, __package__)\nif len(sys.argv) > 1: 1 / 0\n"


@pytest.mark.parametrize("flags", [(), ("-I",), ("-O", "-B"), ("-W", "error"), ("-X", "dev")])
@pytest.mark.parametrize(
    "word", ["sub/program.py", "./sub/program.py", "link.py", "sub/../link.py", "{}/sub/program.py"]
)
def test_first_path_and_file_are_those_of_plain_python(word: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, "sub/program.py", LOOK)
    (tmp_path / "link.py").symlink_to("sub/program.py")
    if flags == ("-I",) and run((sys.executable, "-I", "-c", "import composable_threads"), cwd=tmp_path).returncode:
        pytest.skip("the package is not installed where isolated mode looks")
    assert_same(word.format(tmp_path), cwd=tmp_path, flags=flags)


@pytest.mark.parametrize("words", [(), ("fail",)])
@pytest.mark.parametrize(
    "place", ["folder", "./folder/", "packed.zip", "package", "package.sub", "program.pyc", "bare"]
)
def test_every_kind_of_program_starts_as_under_plain_python(place: str, words: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, "folder/__main__.py", LOOK)
    write(tmp_path, "package/__init__.py", "import sys\nprint('package', sys.argv)\n")
    write(tmp_path, "package/__main__.py", LOOK + "from . import sub\n")
    write(tmp_path, "package/sub.py", LOOK)
    write(tmp_path, "bare", LOOK)
    write(tmp_path, "source.py", LOOK)
    py_compile.compile(str(tmp_path / "source.py"), cfile=str(tmp_path / "program.pyc"))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("__main__.py", LOOK)
    module = ("-m",) if place.startswith("package") else ()
    assert_same(*module, place, *words, cwd=tmp_path)


@pytest.mark.parametrize("words", ["-m absent", "-m package", "-m package.absent", "-m absent.sub", "package"])
def test_what_cannot_be_run_is_answered_as_by_plain_python(words: str, tmp_path: Path) -> None:
    write(tmp_path, "package/__init__.py", "")
    assert_same(*words.split(), cwd=tmp_path)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
@pytest.mark.parametrize("words", [("program.py",), ("-m", "program"), ("-m", "package"), ("package",)])
def test_classes_of_main_cross_to_processes(method: str, words: tuple[str, ...], tmp_path: Path) -> None:
    classes = """
import sys

class Job:
    def __init__(self, number): self.number = number

def work(job):
    return type(job).__name__, job.number + 1, sys.argv[1:]
"""
    pool = f"""
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(pool.map(work, [Job(n) for n in range(4)]))
"""
    write(tmp_path, "program.py", classes + pool)
    # Children never import the __main__ of a package, folder or archive, so its classes have to be elsewhere.
    write(tmp_path, "package/classes.py", classes)
    start = "import sys\nsys.path.insert(0, 'package')\nfrom classes import *\n"
    write(tmp_path, "package/__main__.py", start + pool)
    plain = assert_same(*words, "a", cwd=tmp_path)
    assert plain.returncode == 0 and b"('Job', 4, ['a'])" in plain.stdout


def test_missing_file_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ours = run(OURS, "nope.py", cwd=tmp_path)
    path = os.path.join(os.path.realpath(tmp_path), "nope.py")
    text = f"python -m composable_threads: can't open file {path!r}: [Errno 2] No such file or directory\n"
    assert (ours.stdout, ours.stderr.decode(), ours.returncode) == (b"", text, 2)


@pytest.mark.parametrize("given", ["x", "0", "-1", "-x", "", "1.5", "+4", " 4", "4_0", "\u0664", "9" * 5000])
def test_size_that_is_no_positive_integer_is_one_line_and_exit_code_2(given: str, tmp_path: Path) -> None:
    write(tmp_path, "program.py", "print('ran')")
    for command in ((), ("compare",)):
        ours = run(OURS, *command, "-p", given, "program.py", cwd=tmp_path)
        prefix = " ".join(["python -m composable_threads", *command])
        text = f"{prefix}: error: argument -p: must be a positive integer, not {given!r}\n"
        assert (ours.stdout, ours.stderr.decode(), ours.returncode) == (b"", text, 2)


@pytest.mark.parametrize("line", ["-p 3 program.py -p 9", "-p3 -m program -p 9", "-p3 -mprogram -p 9"])
def test_size_reaches_the_arena_and_nothing_else(line: str, tmp_path: Path) -> None:
    write(tmp_path, "program.py", "import os, sys\nprint(os.environ == before, sys.argv[1:])")
    text = (
        "import builtins, os, composable_threads\n"
        "composable_threads.activate = lambda *, slots: print('slots', slots)\n"
        "builtins.before = dict(os.environ)\n"
        f"from composable_threads.__main__ import main\nmain({line.split()})\n"
    )
    ours = run((sys.executable, "-c", text), cwd=tmp_path)
    assert ours.stdout.decode() == "slots 3\nTrue ['-p', '9']\n", ours.stderr


@pytest.mark.parametrize("error", ["ValueError", "RuntimeError"])
def test_arena_that_cannot_be_had_is_one_line_and_exit_code_2(error: str, tmp_path: Path) -> None:
    write(tmp_path, "program.py", "print('ran')")
    text = (
        "import composable_threads\ndef activate(*, slots):\n"
        f"    raise {error}('what to do')\n"
        "composable_threads.activate = activate\n"
        "from composable_threads.__main__ import main\nmain(['program.py'])\n"
    )
    ours = run((sys.executable, "-c", text), cwd=tmp_path)
    assert (ours.stdout, ours.returncode) == (b"", 2)
    assert ours.stderr == b"python -m composable_threads: error: what to do\n"


@pytest.mark.parametrize("words", [(), ("-p", "2")])
def test_no_program_is_answered_by_the_usage_and_exit_code_2(words: tuple[str, ...], tmp_path: Path) -> None:
    ours = run(OURS, *words, cwd=tmp_path)
    assert (ours.stdout, ours.returncode) == (b"", 2)
    assert ours.stderr.startswith(b"usage: python -m composable_threads [-p P] [--trace FILE] program.py [args ...]\n")


@pytest.mark.parametrize("words", ["-q program.py", "-m", "-p", "- program.py", "info -q", "-p 2 info", "compare"])
def test_words_that_make_no_sense_are_one_line_and_exit_code_2(words: str, tmp_path: Path) -> None:
    ours = run(OURS, *words.split(), cwd=tmp_path)
    assert (ours.stdout, ours.returncode, ours.stderr.count(b"\n")) == (b"", 2, 1)
    assert ours.stderr.startswith(b"python -m composable_threads") and b"error: " in ours.stderr


def test_version_and_help_go_to_stdout(tmp_path: Path) -> None:
    code = "import composable_threads as c; print('composable-threads', c.__version__)"
    version = run((sys.executable, "-c", code), cwd=tmp_path)
    for word, start in (("--version", version.stdout), ("--help", b"usage: "), ("-h", b"usage: ")):
        ours = run(OURS, word, cwd=tmp_path)
        assert ours.stdout.startswith(start) and start and (ours.stderr, ours.returncode) == (b"", 0)


def test_info_of_a_senseless_environment_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    text = (
        "import composable_threads\ndef info():\n    raise ValueError('what to do')\ncomposable_threads.info = info\n"
        "from composable_threads.__main__ import main\nmain(['info'])\n"
    )
    ours = run((sys.executable, "-c", text), cwd=tmp_path)
    assert (ours.stdout, ours.returncode) == (b"", 2)
    assert ours.stderr == b"python -m composable_threads info: error: what to do\n"


def test_info_says_what_info_returns(tmp_path: Path) -> None:
    code = "import json, composable_threads as c; print(json.dumps(sorted(map(str, c.info()))))"
    keys = json.loads(run((sys.executable, "-c", code), cwd=tmp_path).stdout)
    as_json = run(OURS, "info", "--json", cwd=tmp_path)
    assert sorted(json.loads(as_json.stdout)) == keys and as_json.returncode == 0
    code = "import composable_threads as c, numpy.linalg, scipy.linalg, sklearn.utils._openmp_helpers; print(c.info())"
    assert run(OURS, "info", cwd=tmp_path).stdout == run((sys.executable, "-c", code), cwd=tmp_path).stdout


def test_files_named_like_commands_are_programs_when_they_have_a_path(tmp_path: Path) -> None:
    for name in ("info.py", "compare.py"):
        write(tmp_path, name, LOOK)
        assert_same(name, cwd=tmp_path)
    write(tmp_path, "info", LOOK)
    assert_same("./info", cwd=tmp_path)
