"""For the normal test command: the quick suites of a host, each a test."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from conformance.report import report
from conformance.suites import Suite, run


def quick(suites: Sequence[Suite]) -> pytest.MarkDecorator:
    """Parametrize a test with the suites of the quick part."""
    chosen = [suite for suite in suites if suite.is_in("quick")]
    return pytest.mark.parametrize("suite", chosen, ids=[suite.name for suite in chosen])


def check(suite: Suite) -> None:
    """Run it; AssertionError with the report if anything is unexplained."""
    outcome = run(suite)
    assert not outcome.troubles, report(outcome)
