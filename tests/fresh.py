"""Runs code in a fresh Python process, for tests of process-wide state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

_CLEARED = ("COMPOSABLE_", "NUMBA_", "OMP_", "DASK_", "VIRTUAL_ENV")

# The code is run by exec, so that it may begin with a __future__ import and its line numbers are its own.
_PROGRAM = """\
import faulthandler
faulthandler.dump_traceback_later({dump_after})
del faulthandler
exec(compile({code!r}, "<fresh>", "exec"))
"""


def run_fresh(
    code: str,
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    preexec_fn: Callable[[], None] | None = None,
    args: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run ``code`` (indented as you like) as ``__main__`` of a new process, with ``args`` as ``sys.argv[1:]``.

    It starts in an empty directory, as leader of its own process group, and without the caller's COMPOSABLE_*,
    NUMBA_*, OMP_* and DASK_* variables; ``env`` is added to what is left. Returns when the process and all who
    inherited its output have ended. After ``timeout`` seconds the group is killed and AssertionError raised with the
    output so far, which ends with the stacks of all threads.

    faulthandler's watchdog is one more native thread of the process: code that counts threads of the OS subtracts it,
    or first calls ``faulthandler.cancel_dump_traceback_later()``.
    """
    program = _PROGRAM.format(dump_after=max(timeout / 2, timeout - 2), code=textwrap.dedent(code))
    variables = {name: value for name, value in os.environ.items() if not name.startswith(_CLEARED)}
    variables.update(env or {})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", program, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            cwd=directory,
            env=variables,
            start_new_session=True,
            preexec_fn=preexec_fn,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            stdout, stderr = _kill_group(process)
            message = f"not finished after {timeout} s{_report(stdout, stderr)}"
            raise AssertionError(message) from None
        except BaseException:
            _kill_group(process)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def check_fresh(
    code: str,
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    preexec_fn: Callable[[], None] | None = None,
    args: Sequence[str] = (),
    allow_stderr: bool = False,
) -> str:
    """``run_fresh`` that must exit with 0 and write nothing to stderr; returns its stdout."""
    done = run_fresh(code, env=env, timeout=timeout, preexec_fn=preexec_fn, args=args)
    report = _report(done.stdout, done.stderr)
    assert done.returncode == 0, f"exit code {done.returncode}{report}"
    assert allow_stderr or not done.stderr, f"unexpected stderr{report}"
    return done.stdout


def _kill_group(process: subprocess.Popen[str]) -> tuple[str, str]:
    # Processes forked from the group's leader have no watchdog, but they have faulthandler's handlers: SIGABRT makes
    # those which hang print their stacks too.
    for deadly in (signal.SIGABRT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, deadly)
        try:
            return process.communicate(timeout=3)
        except subprocess.TimeoutExpired as expired:
            output = expired.stdout, expired.stderr
    # A descendant that left the group still holds the pipes; it isn't ours to kill.
    process.stdout.close()
    process.stderr.close()
    process.wait()
    return tuple(_text(part) for part in output)


def _text(part: bytes | str | None) -> str:
    return part.decode(errors="backslashreplace") if isinstance(part, bytes) else part or ""


def _report(stdout: str, stderr: str) -> str:
    return f"\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
