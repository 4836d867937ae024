"""Numba's own tests of threading layers pass with the arena as layer; those that are quick enough for every run."""

from __future__ import annotations

from conformance.check import check, quick
from conformance.numba_suites import SUITES


@quick(SUITES)
def test_numbas_own_tests_pass(suite):
    check(suite)
