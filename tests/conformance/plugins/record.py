"""Writes down what became of every test of a suite, as it happens: ``pytest -p record``, or `write` for unittest.

One JSON object a line in the file that ``CONFORMANCE_RECORD`` names: ``{"begin": test}``, ``{"end": test, "outcome":
..., "text": ...}`` and ``{"uses": number}``, so that a process that hangs or dies leaves which test it was in. Without
the variable nothing is written. Tests that fully match a regular expression of ``CONFORMANCE_LEFT_OUT`` (a JSON list)
are not run.
"""

from __future__ import annotations

import json
import os
import re

_file = os.environ.get("CONFORMANCE_RECORD")
_owner = os.getpid()
_left_out = [re.compile(pattern) for pattern in json.loads(os.environ.get("CONFORMANCE_LEFT_OUT", "[]"))]
_uses = 0
STOCK = bool(os.environ.get("CONFORMANCE_STOCK"))  # leave the stock threads in their place, to compare


def write(**entry: object) -> None:
    if _file and os.getpid() == _owner:  # a child that a test forks tells nothing
        with open(_file, "a") as file:
            file.write(json.dumps(entry) + "\n")


def used(times: int = 1) -> None:
    """Count uses of the arena: of its layer, its backend or its scheduler."""
    global _uses
    _uses += times


def write_uses() -> None:
    write(uses=_uses)


def is_left_out(test: str) -> bool:
    if not any(pattern.fullmatch(test) for pattern in _left_out):
        return False
    write(end=test, outcome="left out", text="")
    return True


# --- pytest


def name(item) -> str:
    """Without the folder that the host is installed in: ``dask.tests.test_order::test_deep_bases``."""
    file, _, rest = item.nodeid.partition("::")
    return f"{getattr(getattr(item, 'module', None), '__name__', file)}::{rest}"


try:
    import pytest
except ImportError:  # only unittest is wanted
    pass
else:

    def pytest_collection_modifyitems(config, items):
        left = [item for item in items if is_left_out(name(item))]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]

    def pytest_collectreport(report):
        if report.failed:
            write(end=report.nodeid, outcome="failed", text=report.longreprtext)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(item):
        item.conformance = ("passed", "")
        write(begin=name(item))
        yield
        outcome, text = item.conformance
        write(end=name(item), outcome=outcome, text=text)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(item):
        report = (yield).get_result()
        if not report.passed and item.conformance[0] != "failed":
            item.conformance = (report.outcome, report.longreprtext if report.failed else "")

    def pytest_sessionfinish():
        write_uses()
