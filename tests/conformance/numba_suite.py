"""Runs Numba's own tests with the arena as threading layer: ``python numba_suite.py -v numba.tests.test_parfors``.

Takes the arguments of ``python -m numba.runtests``. Where those tests know Numba's three layers by name, a fourth is added;
no assertion is weakened, but that a layer may use fewer threads than the mask allows, which they grant to tbb.
"""

from __future__ import annotations

import os
import sys
import unittest

LAYER = "composable"


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
        return run_cmd(self, command, env)

    return run_cmd_here


def main(arguments: list[str]) -> int:
    """Run the tests; 0 if they passed. The last line of stderr tells which layer they launched in this process."""
    name_the_layer()
    from numba.np.ufunc import parallel
    from numba.testing import run_tests

    passed = run_tests([sys.argv[0], *arguments])
    print(f"threading layer: {parallel._threading_layer}", file=sys.stderr)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
