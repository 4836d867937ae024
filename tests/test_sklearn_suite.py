"""scikit-learn's own tests of parallel estimators pass with our backend as Joblib's default."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
from conformance.check import check, quick
from conformance.sklearn_suites import SUITES


@quick(SUITES)
def test_sklearns_own_tests_pass(suite):
    check(suite)
