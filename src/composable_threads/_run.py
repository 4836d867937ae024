"""Runs a user's program under the arena, as the interpreter itself would have run it.

`python program.py` and `python -m module` are C code (CPython's main.c and pythonrun.c), of which the standard library
offers only the part behind -m: runpy.run_path leaves its frames in tracebacks and takes the program's `__main__` away
before threads and atexit handlers are done with it. So the steps are done here, in the interpreter's order. What still
tells the two apart: sys.orig_argv is the real one, and a few frames are below the program's, for who walks or fills the
stack.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import functools
import importlib.machinery
import importlib.util
import marshal
import os
import pkgutil
import runpy
import sys
import warnings
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import NoReturn


def run(program: list[str], *, slots: int | None, trace_path: str | None = None) -> None:
    """Run [file, *args] or ["-m", module, *args]; returns if it ends normally, else raises the SystemExit to end with.

    To be called once, last, on the main thread, from `python -m`: only that way does the interpreter, after it has been
    finalised, end the process by SIGINT where the program ended by Ctrl-C.
    """
    if program[0] == "-m":
        sys.argv[:] = ["-m", *program[2:]]  # runpy puts the file's name in the place of "-m", once it is found
        _activate(slots, trace_path)
        _run_module(program[1], alter_argv=True)
        return
    sys.argv[:] = program
    path = os.path.join(os.getcwd(), program[0])  # not normalised: nor does the interpreter
    if pkgutil.get_importer(path) is not None:  # a directory or an archive
        _set_first_path(path, always=True)
        _activate(slots, trace_path)
        _run_module("__main__", alter_argv=False)
        return
    _set_first_path(os.path.dirname(os.path.realpath(path)), always=False)
    code, loader = _load(path)
    _activate(slots, trace_path)
    _run_file(path, code, loader)


def _activate(slots: int | None, trace_path: str | None) -> None:
    from composable_threads import activate

    try:
        activate(slots=slots)
        if trace_path is not None:
            from .timeline.recording import RecordedRun

            # Before the program's own handlers are registered, so it runs after them.
            atexit.register(RecordedRun(os.path.abspath(trace_path)).finish)
    except (ValueError, RuntimeError) as error:
        _give_up(f"error: {error}")


def _give_up(message: str) -> NoReturn:
    if sys.stderr is not None:
        sys.stderr.write(f"python -m composable_threads: {message}\n")
    raise SystemExit(2) from None


def _set_first_path(entry: str, *, always: bool) -> None:
    """Put it where `python -m` has the current directory; -P and -I leave that out and only accept `always`."""
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path[0] = entry
    elif always:
        sys.path.insert(0, entry)


def _load(path: str) -> tuple[CodeType, type]:
    """The program's code and the kind of loader that `__main__` names for it."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        _give_up(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}")
    try:
        if source.startswith(importlib.util.MAGIC_NUMBER):
            return marshal.loads(source[16:]), importlib.machinery.SourcelessFileLoader
        with warnings.catch_warnings(record=True) as heard:
            code = compile(source, path, "exec", dont_inherit=True)
    except Exception:
        _leave_to_plain_python()
    for warning in heard:
        warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    return code, importlib.machinery.SourceFileLoader


def _leave_to_plain_python() -> NoReturn:
    """Replace this process by a plain interpreter, which says in its own words why the program cannot be compiled.

    compile() words it unlike the interpreter's reader of files: encodings, null bytes, a missing last newline.
    """
    import subprocess

    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # multiprocessing's way
    os.execv(sys.executable, [sys.executable, *flags, *sys.argv])


def _new_main() -> ModuleType:
    """Make `__main__` what it is before a program starts; names are in the interpreter's order, for who prints them."""
    old = vars(sys.modules["__main__"])
    main = ModuleType("__main__")
    names = vars(main)
    names["__loader__"] = importlib.machinery.BuiltinImporter
    if "__annotations__" in old:  # until Python 3.14
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    sys.modules["__main__"] = main
    return main


def _run_module(name: str, *, alter_argv: bool) -> None:
    _new_main()
    run_as_main = runpy._run_module_as_main  # type: ignore[attr-defined]  # what the interpreter calls for -m
    error = _outcome(functools.partial(run_as_main, name, alter_argv))
    if isinstance(error, SystemExit):
        raise error
    if error is not None:
        _report(error)
        _fail(error)


def _run_file(path: str, code: CodeType, loader: type) -> None:
    names = vars(_new_main())
    names.update(__file__=path, __cached__=None, __loader__=loader("__main__", path))
    error = _outcome(functools.partial(exec, code, names))
    _flush()
    if isinstance(error, SystemExit):
        # The interpreter exits on the spot here, and does not ask, as it does for -m, whether a string given to exec()
        # was once ended by Ctrl-C. Running any string makes it forget.
        exec("")
        raise error
    if error is not None:
        _report(error)
    # Threads and atexit handlers that outlive the program find these gone under plain Python too.
    names.pop("__file__", None)
    names.pop("__cached__", None)
    if error is not None:
        _fail(error)


def _outcome(start: Callable[[], object]) -> BaseException | None:
    """What escaped from the program, its traceback without our frames."""
    try:
        start()
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        return error.with_traceback(trace)
    return None


def _flush() -> None:
    # Before a traceback or a thread that goes on prints: the order counts where both streams end in one file.
    for stream in (getattr(sys, "stderr", None), getattr(sys, "stdout", None)):
        with contextlib.suppress(BaseException):  # as the interpreter: it tries again at its end, and fails there
            stream.flush()  # type: ignore[union-attr]


def _report(error: BaseException) -> None:
    """What the interpreter does with an exception that nobody caught (PyErr_Print)."""
    kind, trace = type(error), error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    hook = getattr(sys, "excepthook", None)
    sys.audit("sys.excepthook", hook, kind, error, trace)
    if hook is None:
        _say("sys.excepthook is missing")
        hook = sys.__excepthook__
    second = _outcome(functools.partial(hook, kind, error, trace))
    if isinstance(second, SystemExit):
        raise second
    if second is not None:
        _say("Error in sys.excepthook:")
        sys.__excepthook__(type(second), second, second.__traceback__)
        _say("\nOriginal exception was:")
        sys.__excepthook__(kind, error, trace)


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text + "\n")


def _fail(error: BaseException) -> NoReturn:
    if type(error) is KeyboardInterrupt:
        # The interpreter ends the process by SIGINT, after everything else, if it noted that Ctrl-C was not handled.
        # Python code can make it note that only by a string: code objects and ordinary exceptions do not pass there.
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")
    raise SystemExit(1)
