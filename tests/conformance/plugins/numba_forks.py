"""Numba's tests that only one of its layers is asked, put to the arena: what aborts there must compute here.

The scripts are Numba's. Of each the lines that expect a layer's name or its failure are replaced by the answer that is
right; a line that is not found fails the test, so that a script that Numba changes is read again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar

import numba.tests.test_parallel_backend as backends
import record

LAYER = "composable"


class _Ported:
    """Runs the script with the layer; an error is none that Numba's test would catch and expect."""

    __unittest_skip__ = False
    replaced: ClassVar[dict[str, dict[str, str]]] = {}

    def __init_subclass__(cls):
        # Numba skips them where the layer that they name is missing; it isn't asked for here.
        for name in dir(cls):
            test = getattr(cls, name)
            if name.startswith("test_") and getattr(test, "__unittest_skip__", False):
                setattr(cls, name, test.__wrapped__)

    def run_cmd(self, cmdline, env=None):
        program, flag, code = cmdline
        for old, new in self.replaced.get(self._testMethodName, {}).items():
            if old not in code:
                raise RuntimeError(f"Numba's script has no {old!r} any more")
            code = code.replace(old, new)
        code += f"\nimport numba; assert numba.threading_layer() == '{LAYER}'\n"
        env = dict(os.environ if env is None else env) | {"NUMBA_THREADING_LAYER": LAYER}
        env["PYTHONWARNINGS"] = "ignore::DeprecationWarning"  # of Python 3.12 and later, of forks beside threads
        # For the one that compiles: oneTBB's headers and library are where pip puts them.
        for variable, folder in (("CPATH", "include"), ("LIBRARY_PATH", "lib"), ("LD_LIBRARY_PATH", "lib")):
            env[variable] = os.pathsep.join(filter(None, [str(Path(sys.prefix, folder)), env.get(variable)]))
        try:
            out, err = super().run_cmd([program, flag, code], env=env)
        except AssertionError as error:
            raise RuntimeError(str(error)) from error
        if err and "SKIP" not in out:
            raise RuntimeError(f"unexpected stderr: {err}")
        record.used()
        return out, err


class TestForkSafetyIssues(_Ported, backends.TestForkSafetyIssues):
    """Every fork succeeds, and parent and child compute."""

    test_check_threading_layer_is_gnu = None
    _child_computed = {
        "err = q.get()": "proc.join(60); assert proc.exitcode == 0",
        'assert "Caught SIGTERM" in str(err)': "assert q.empty()",
    }
    replaced = {
        "test_par_parent_os_fork_par_child": {"os.wait()": "assert os.wait() == (pid, 0)"},
        "test_par_parent_implicit_mp_fork_par_child": _child_computed,
        "test_par_parent_explicit_mp_fork_par_child": _child_computed,
    }


class TestMiscBackendIssues(_Ported, backends.TestMiscBackendIssues):
    """A small stack, one thread, nesting, which workqueue answers with an abort, and a fork from another thread."""

    replaced = {
        "test_omp_stack_overflow": {'"omp"': f'"{LAYER}"'},
        "test_single_thread_tbb": {'"tbb"': f'"{LAYER}"'},
        "test_workqueue_aborts_on_nested_parallelism": {"main()\n        ": "assert (main() == 1).all()\n        "},
        "test_workqueue_handles_fork_from_non_main_thread": {'"workqueue"': f'"{LAYER}"'},
    }


class TestTBBSpecificIssues(_Ported, backends.TestTBBSpecificIssues):
    """A fork from another thread makes no message, and another handle of oneTBB's scheduler may live."""

    replaced = {
        "test_fork_from_non_main_thread": {
            "THREADING_LAYER='tbb'": f"THREADING_LAYER='{LAYER}'",
            ".isSet()": ".is_set()",
        },
        "test_lifetime_of_task_scheduler_handle": {
            "task_scheduler_handle::get()": "task_scheduler_handle{tbb::attach{}}",  # as oneTBB has it since 2021.6
            "== 'tbb'": f"== '{LAYER}'",
        },
    }

    def assertIn(self, member, container, msg=None):
        # Numba wants tbb's message that the fork was not safe. There is none here: `run_cmd` has looked.
        if not str(member).startswith("Attempted to fork from a non-main thread"):
            super().assertIn(member, container, msg)


del backends
