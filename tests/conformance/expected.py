"""Every test of a host's that does not pass with ours in the stock one's place, or is not run, and why.

Nothing else may fail.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Difference:
    """Tests of the suites that fit `suite` whose whole name fits `tests`; ``*`` in both stands for anything.

    `kind` is "differs" for what must fail (if it passes, it has no place here any more), "may differ" for what fails at
    times, with the stock threads too, and "left out" for what is not run.
    """

    suite: str
    tests: str
    reason: str
    kind: Literal["differs", "may differ", "left out"] = "differs"

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.tests).replace(r"\*", ".*"), re.DOTALL)


def differences(suite: str) -> list[Difference]:
    """Those of the suite with this name."""
    return [difference for difference in DIFFERENCES if fnmatch.fnmatch(suite, difference.suite)]


def _is_older(host: str, *than: int) -> bool:
    return tuple(int(part) for part in importlib.metadata.version(host).split(".")[: len(than)]) < than


_PROCESSES = "asks for Dask's scheduler of processes, which is replaced here"

DIFFERENCES = (
    # --- Joblib, where our backend is the one called "threading"
    Difference(
        "joblib threading*",
        "joblib.test.test_parallel::test_backend_hinting_and_constraints_with_custom_backends*",
        "asks for the class name ThreadingBackend in a message",
    ),
    Difference(
        "joblib threading*",
        "joblib.test.test_parallel::test_nested_parallelism_limit[*]",
        "asks for the class name ThreadingBackend, and for sequential calls at the third level; ours nest deeper",
    ),
    *(
        Difference(
            "joblib threading*",
            f"joblib.test.test_parallel::test_nested_backend_context_manager[*-{backend}]",
            "asks in a process of loky, where the plugin is not, if the class it was sent is Joblib's ThreadingBackend",
        )
        for backend in ("loky", "back_compat_backend")
    ),
    Difference(
        "joblib threading*",
        "joblib.test.test_parallel::test_retrieval_context[False-*]",
        "takes the callbacks away from a subclass of the threads' backend, then wants a pool's result objects",
    ),
    *(
        Difference(
            "joblib threading*",
            f"joblib.test.test_config::test_threadpool_limitation_in_child_context_error[*-{backend}]",
            "wants inner_max_num_threads to be refused, as Joblib's threads do; ours limits by it what runs in a task",
        )
        for backend in ("threading", "backend3")
    ),
    # --- scikit-learn, where our backend is Joblib's default
    Difference(
        "sklearn parallel",
        "sklearn.tests.test_multioutput::test_multi_output_classification_partial_fit_parallelism",
        "wants other objects back than it sent, as processes give; with Joblib's own threads as default it fails too",
    ),
    Difference(
        "sklearn ensemble",
        "sklearn.ensemble.tests.test_forest::test_backend_respected",
        "wants a default backend that shares no memory; with Joblib's own threads as default it fails too",
    ),
    # --- distributed
    Difference(
        "distributed worker",
        "*test_worker::test_bad_local_directory",
        "wants a folder in / to be refused, which it is not to root; with the stock threads it fails too",
        "may differ",
    ),
    Difference(
        "distributed worker",
        "*test_worker::test_worker_bad_args",
        "wants a line of source in a traceback, which cloudpickle hides; with the stock threads it fails too",
        "may differ",
    ),
    # --- Dask, where every local scheduler is replaced
    *(
        [
            Difference(
                "dask order",
                "dask.tests.test_order::test_run_smaller_sections[*]",
                "asks for one of two orders; ours is that of Dask since 2025.5, which is a third",
            )
        ]
        if _is_older("dask", 2025, 5)
        else []
    ),
    Difference("dask *", "*test_temporary_directory*", "sends a lambda to an executor of processes, which only Dask's "
               "own scheduler of processes can", "left out"),
    Difference("dask collections array", "*::test_binary_operator_delegation*", "needs pytest-mock, which is not among "
               "the tests' requirements", "left out"),
    Difference("dask collections array", "dask.array.tests.test_reductions::test_nanquantile_all_nan", "needs the "
               "settings of Dask's repository, which make warnings errors; with the stock schedulers it fails too"),
    Difference("dask collections dataframe", "dask.dataframe.io.tests.test_orc::*", "fetches its files from "
               "the network, or needs aiohttp for it", "left out"),
    Difference("dask collections*", "*processes*", _PROCESSES, "left out"),
    Difference("dask collections quick", "*groupby*", "a minute, most of it in files; the full run has it", "left out"),
    Difference("dask collections quick", "*test_norm*", "half a minute of arithmetic; the full run has it", "left out"),
)  # fmt: skip
