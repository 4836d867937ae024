"""The code meets the rules that it states. Needs the extra ``lint``; `python -m tests.lint` does the same by itself."""

from __future__ import annotations

import lint
import pytest


@pytest.mark.parametrize("name", lint.CHECKS)
def test_code_is_clean(name):
    if lint.is_missing(name):
        pytest.skip(f"{lint.CHECKS[name][0]} is not installed; it comes with the extra 'lint'")
    assert not lint.complaints(name), lint.complaints(name)
