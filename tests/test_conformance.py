"""The conformance command tells what fails, what does not differ any more, what hangs, and if ours was not used."""

from __future__ import annotations

import pytest
from conformance import suites
from conformance.expected import DIFFERENCES, Difference
from conformance.suites import Suite, run

TESTS = """
import os, time
import pytest, record

def test_passes(): record.used()
def test_fails(): assert 1 == 2
@pytest.mark.parametrize("way", ["a[0]", "b"])
def test_differs(way): assert way == "b"
def test_is_skipped(): pytest.skip("why")
@pytest.fixture
def broken():
    yield
    raise OSError("torn down")
def test_breaks_when_torn_down(broken): pass
"""
END = """
import os, time
def test_passes(): pass
def test_ends_the_process(): {how}
"""


@pytest.fixture
def run_tests(tmp_path, monkeypatch):
    """Runs a file of tests as a suite of a host called ``madeup``, with these differences expected."""
    package = tmp_path / "madeup"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def run_tests(text, *known, seconds=60, **options):
        (package / "test_file.py").write_text(text)
        monkeypatch.setattr(suites, "differences", lambda name: list(known))
        return run(Suite(name="madeup suite", tests=("test_file.py",), plugin="record", seconds=seconds, **options))

    return run_tests


def test_what_fails_is_told_unless_it_is_expected(run_tests):
    outcome = run_tests(TESTS, Difference("*", "*::test_differs[a*", "yes"))
    names = {kind: [test.split("::")[1] for test in getattr(outcome, kind)] for kind in ("passed", "failed", "differs")}
    assert names == {
        "passed": ["test_passes", "test_differs[b]"],
        "failed": ["test_fails", "test_breaks_when_torn_down"],
        "differs": ["test_differs[a[0]]"],
    }
    assert len(outcome.skipped) == 1 and outcome.uses == 1
    assert len(outcome.troubles) == 2 and "1 == 2" in outcome.troubles[0] and "torn down" in outcome.troubles[1]


def test_difference_that_is_none_any_more_is_told(run_tests):
    text = "import record\ndef test_a(): record.used()"
    assert run_tests(text).troubles == []
    assert run_tests(text, Difference("*", "*test_a", "why", "may differ")).troubles == []
    assert "expected to differ: why" in run_tests(text, Difference("*", "*test_a", "why")).troubles[0]


def test_what_is_left_out_does_not_run(run_tests):
    outcome = run_tests(TESTS, Difference("*", "*s", "why", "left out"), passes=0, uses=0)
    assert [test.split("::")[1] for test in outcome.left_out] == ["test_passes", "test_fails"]
    assert [test.split("::")[1] for test in outcome.passed] == ["test_differs[b]"] and outcome.uses == 0


@pytest.mark.parametrize(("how", "seconds"), [("os._exit(0)", 60), ("os.abort()", 60), ("time.sleep(60)", 5)])
def test_process_that_dies_or_hangs_is_told(run_tests, how, seconds):
    outcome = run_tests(END.format(how=how), seconds=seconds, uses=0)
    assert [test.split("::")[1] for test in outcome.passed] == ["test_passes"]
    assert [test.split("::")[1] for test in outcome.failed] == ["test_ends_the_process"]
    assert outcome.troubles


@pytest.mark.parametrize(
    ("text", "trouble"), [("def test_a(): pass", "used 0 times"), ("import nothing_like_it", "failed")]
)
def test_suite_that_does_not_use_the_arena_or_has_no_tests_is_told(run_tests, text, trouble):
    assert trouble in " ".join(run_tests(text).troubles)


def test_every_difference_has_a_reason_and_a_suite():
    from conformance import dask_suites, distributed_suites, joblib_suites, numba_suites, sklearn_suites

    for difference in DIFFERENCES:
        hosts = (numba_suites, joblib_suites, dask_suites, distributed_suites, sklearn_suites)
        names = [suite.name for host in hosts for suite in host.SUITES]
        assert difference.reason and any(difference in suites.differences(name) for name in names), difference
