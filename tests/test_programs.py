"""Random nested programs give the known answer within the arena, in time; ``python -m tests.programs`` runs more."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh import check_fresh
from programs import runner

_FAILS = ("raise", {"error": "LookupError", "mark": 0}, [])

# (arena's size, program) as `python -m tests.programs` prints them: each failed once.
REGRESSIONS: list[tuple[int, runner.Node]] = [
    # wait() and as_completed() in an iteration of a region kept the permit that the futures' tasks needed.
    (1, ("objects", {}, [("executor", {"workers": 5, "how": "completed"}, [("value", {"n": 2}, [])])])),
    (1, ("objects", {}, [("executor", {"workers": 1, "how": "wait"}, [("value", {"n": 2}, [])])])),
    # A Joblib task was dropped after another's error, though a later one that had begun waited for it.
    *[(4, ("chain", {"door": "joblib", "says": False}, [_FAILS, ("gufunc", {"n": 5}, []), _FAILS]))] * 50,
]

LEAF = ("value", {"n": 4}, [])


def test_random_programs_are_right():
    # Always the same ones, so that a failure is of the change at hand.
    figures = runner.run(runner.generate(300, 6), runner.SIZES)
    assert not figures.failures, "\n".join(runner.report(figures, 6))
    assert figures.programs == 300 and figures.processes == len(runner.SIZES)


@pytest.mark.parametrize("slots", sorted({size for size, _ in REGRESSIONS}))
def test_programs_that_failed_once_are_right(slots):
    figures = runner.run([program for size, program in REGRESSIONS if size == slots], [slots])
    assert not figures.failures, "\n".join(runner.report(figures, 0))


def test_programs_leave_no_objects():
    # Errors, their tracebacks and what those hold. Two in a hundred of these programs once left some of them.
    grown = check_fresh(
        """
        import gc, sys, time, types
        from composable_threads import _native
        from programs import kernels, runner, worker
        from programs.interpreter import Interpreter
        worker.quiet()
        _native.configure(2)
        kernels.compile_all()
        interpreter, programs = Interpreter(2), runner.generate(400, 7)
        def left():
            for program in programs:
                worker.run_checked(interpreter, 2, program)
            gc.collect()
            time.sleep(0.5)  # for the spares to go
            gc.collect()
            return sum(issubclass(type(thing), (BaseException, types.TracebackType)) for thing in gc.get_objects())
        before = left()
        print(left() - before)
        """,
        env={"NUMBA_THREADING_LAYER": "composable", "NUMBA_NUM_THREADS": "8", "PYTHONPATH": str(Path(__file__).parent)},
        timeout=240,
    )
    assert int(grown) <= 5, f"{grown} more"


# --- that it would be seen


def test_what_goes_wrong_is_seen_and_the_rest_runs(monkeypatch):
    monkeypatch.setattr(runner, "PROGRAM_SECONDS", 10)
    signs = {
        "answer": "answer",
        "error": "lost error",
        "peak": "threads in kernels",
        "thread": "not idle",
        "crash": "ended with -11",
        "hang": "Timeout",
        "child": "Timeout",
    }
    faults = [("fault", {"how": how}, []) for how in signs]
    figures = runner.run([program for fault in faults for program in (LEAF, fault)] + [LEAF], [2])
    assert [failure.program for failure in figures.failures] == faults
    for failure, sign in zip(figures.failures, signs.values(), strict=True):
        assert sign in failure.why
    assert figures.processes == 4


def test_failures_shrink_to_a_program_that_can_be_pasted(monkeypatch):
    # The wrong answer of a product: the least program with one is a node of any kind above it.
    monkeypatch.setenv("PROGRAMS_FAULT", "blas")
    made = runner.generate(30, 1)
    figures = runner.run(made, [2])
    assert figures.failures
    least = runner.shrink(figures.failures[0], 1, 30)
    assert len(least.program[2]) == 1 and least.program[2][0] == ("blas", {"n": 3}, []), least
