"""Runs Numba's own tests with the arena as threading layer: ``python numba_runner.py -v numba.tests.test_parfors``.

Takes the arguments of ``python -m numba.runtests``, and names that end in ``*``. Where those tests know Numba's three
layers by name, a fourth is added; no assertion is weakened, but that a layer may use fewer threads than the mask
allows, which they grant to tbb. Names that this version of Numba does not have are passed over.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fnmatch
import importlib
import os
import sys
import unittest

import record

LAYER = "composable"
# A test that starts twenty processes takes a minute on an idle machine.
TEST_SECONDS = 900
_kept: list[object] = []  # compiled code that is in use


def name_the_layer() -> None:
    os.environ["NUMBA_THREADING_LAYER"] = LAYER
    from numba.core import config

    # TestParallelBackend is skipped unless a layer that it knows was named when its module was imported.
    config.THREADING_LAYER = "tbb"
    import numba.tests.test_parallel_backend as backends

    config.THREADING_LAYER = LAYER
    import numba.tests.test_num_threads as num_threads

    num_threads.TestNumThreads.check_mask = _check_mask
    backends.TestParallelBackendBase.safe_backends = {LAYER}
    backends.TestInSubprocess.run_cmd = _run_here(backends.TestInSubprocess.run_cmd)
    # These make a test of every layer in a table of theirs and run it in a process that is told the layer.
    for case in (
        backends.TestSpecificBackend,
        backends.TestThreadingLayerSelection,
        num_threads.TestNumThreadsBackends,
    ):
        for name in [name for name in vars(case) if name.startswith("test_")]:
            delattr(case, name)
        case.backends = {LAYER: unittest.skipIf(False, "")}
        case.generate()


def _check_mask(self: unittest.TestCase, expected: object, result: object) -> None:
    import numpy as np

    self.assertTrue(np.all(np.asarray(result) <= np.asarray(expected)), f"{result} > {expected}")


def _run_here(run_cmd):
    def run_cmd_here(self, command, env):
        if command[1:3] == ["-m", "numba.runtests"]:
            command = [command[0], __file__, *command[3:]]
            env = env | {"CONFORMANCE_NESTED": "1"}
        return run_cmd(self, command, env)

    return run_cmd_here


def count_regions() -> ctypes.c_int64:
    """Count the regions that the layer is asked for, in compiled code: a Python function there would take the GIL."""
    import llvmlite.binding as llvm
    from composable_threads.numba_layer import layer
    from llvmlite import ir

    regions = ctypes.c_int64()
    word = ir.IntType(64)
    kind = ir.FunctionType(ir.VoidType(), [word] * 8)  # as wide as its pointers
    module = ir.Module()
    counted = ir.Function(module, kind, "counted")
    builder = ir.IRBuilder(counted.append_basic_block())
    counter = word(ctypes.addressof(regions)).inttoptr(word.as_pointer())
    builder.atomic_rmw("add", counter, word(1), "monotonic")
    builder.call(ir.Function(module, kind, "uncounted"), counted.args, tail=True)
    builder.ret_void()

    llvm.add_symbol("uncounted", layer._LAUNCH_SYMBOLS["numba_parallel_for"])
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    engine.finalize_object()
    layer._LAUNCH_SYMBOLS["numba_parallel_for"] = engine.get_function_address("counted")
    _kept.append(engine)
    return regions


def tests_named(pattern: str) -> list[str]:
    """The tests of Numba that `pattern` names: a module, a class or a test, of which the last part may end in ``*``."""
    parts = pattern.split(".")
    for length in range(len(parts), 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:length]))
            break
        except ModuleNotFoundError:
            continue
    else:
        return []
    for place, part in enumerate(parts[length:], length):
        if part.endswith("*"):
            return [".".join([*parts[:place], name]) for name in dir(owner) if fnmatch.fnmatch(name, part)]
        if not hasattr(owner, part):
            return []
        owner = getattr(owner, part)
    return [pattern]


def record_tests() -> None:
    """Write down what becomes of every test, and end the process if one takes too long."""
    from numba.testing import main

    class Result(main.runner.TextTestResult):
        def startTest(self, test):
            super().startTest(test)
            self.outcome = ("passed", "")
            record.write(begin=test.id())
            faulthandler.dump_traceback_later(TEST_SECONDS, exit=True)

        def stopTest(self, test):
            faulthandler.cancel_dump_traceback_later()
            record.write(end=test.id(), outcome=self.outcome[0], text=self.outcome[1])
            super().stopTest(test)

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            self.outcome = ("skipped", "")

        def addError(self, test, error):
            super().addError(test, error)
            self.outcome = ("failed", self.errors[-1][1])
            if not isinstance(test, unittest.TestCase):  # a class or a module could not be set up
                record.write(end=str(test), outcome="failed", text=self.outcome[1])

        def addFailure(self, test, error):
            super().addFailure(test, error)
            self.outcome = ("failed", self.failures[-1][1])

        def addSubTest(self, test, subtest, error):
            super().addSubTest(test, subtest, error)
            if error is not None:
                self.outcome = ("failed", self._exc_info_to_string(error, test))

        def addUnexpectedSuccess(self, test):
            super().addUnexpectedSuccess(test)
            self.outcome = ("failed", "passed where Numba expects a failure")

    main.BasicTestRunner.resultclass = Result
    flatten = main._flatten_suite
    main._flatten_suite = lambda suite: [test for test in flatten(suite) if not record.is_left_out(test.id())]


def main(arguments: list[str]) -> int:
    """Run the tests; 0 if they passed."""
    name_the_layer()
    regions = count_regions()
    if "CONFORMANCE_NESTED" not in os.environ:
        record_tests()
    from numba.testing import run_tests

    names = [name for argument in arguments for name in ([argument] if argument[0] == "-" else tests_named(argument))]
    passed = run_tests([sys.argv[0], *names])
    record.used(regions.value)
    record.write_uses()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
