"""distributed's own tests of what runs in a worker's threads, with the arena's in their place, from a checkout."""

from __future__ import annotations

import pytest
from conformance.check import check, quick
from conformance.distributed_suites import CHECKOUT, SUITES, is_there, put_together


@pytest.mark.skipif(not is_there(), reason="CONFORMANCE_DISTRIBUTED names no checkout, and packages have no tests")
@quick(SUITES)
def test_distributeds_own_tests_pass(suite):
    check(suite)


@pytest.mark.skipif(is_there(), reason="there is a checkout")
def test_without_a_checkout_the_reason_is_told(tmp_path):
    with pytest.raises(LookupError, match="CONFORMANCE_DISTRIBUTED"):
        put_together(tmp_path, tmp_path / "host")
    assert not CHECKOUT
