"""The name ``composable`` in Joblib: it is known without an import, and passes Joblib's own tests of its backends."""

from __future__ import annotations

import pytest
from conformance.check import check, quick
from conformance.joblib_suites import SUITES
from fresh import check_fresh


@pytest.mark.parametrize(
    "call",
    [
        "joblib.Parallel(n_jobs=2, backend='composable')",
        "(joblib.parallel_config('composable', n_jobs=2), joblib.Parallel())[1]",
        "(joblib.parallel_backend('composable', n_jobs=2), joblib.Parallel())[1]",
    ],
    ids=["Parallel", "parallel_config", "parallel_backend"],
)
@pytest.mark.parametrize("select", ["pth", "import before", "import after"])
def test_name_is_known_without_an_import_or_with_one_where_that_is_turned_off(call, select):
    ours = "import composable_threads"
    before, after = (ours if select == "import " + when else "" for when in ("before", "after"))
    code = f"""
{before}
import joblib
{after}
parallel = {call}
print(parallel(joblib.delayed(pow)(i, 2) for i in range(5)), type(parallel._backend).__name__)
"""
    env = {} if select == "pth" else {"COMPOSABLE_AUTOLOAD": "0"}
    assert check_fresh(code, env=env) == "[0, 1, 4, 9, 16] ComposableBackend\n"


@pytest.mark.parametrize(("env", "known"), [({}, True), ({"COMPOSABLE_AUTOLOAD": "0"}, False)])
def test_nothing_is_imported_before_the_name_is_selected(env, known):
    code = "import joblib, sys; print('composable' in joblib.parallel.BACKENDS, 'composable_threads' in sys.modules)"
    assert check_fresh(code, env=env) == f"{known} False\n"


# --- Joblib's own tests


@quick(SUITES)
def test_joblibs_own_tests_pass(suite):
    check(suite)
