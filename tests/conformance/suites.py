"""What a suite is, and how it is run: in a fresh process, under a time limit, every test's outcome written down."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fresh import run_fresh

from conformance.expected import Difference, differences

PLUGINS = Path(__file__).parent / "plugins"

_RUN_PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
_RUN_NUMBA = f"import runpy; runpy.run_path({str(PLUGINS / 'numba_runner.py')!r}, run_name='__main__')"
_PYTEST_OPTIONS = (
    "-q", "-p", "record", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", "--tb=short", "--rootdir=.",
    "-o", "faulthandler_timeout=120", "-o", "faulthandler_exit_on_timeout=true",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tests of a host that are run in one process.

    `tests` are files below the host's package for pytest (those that this version of the host has not are passed over),
    names as ``python -m numba.runtests`` takes them for Numba. `part` says which command runs the suite: the quick one,
    the full one, or both. It must pass at least `passes` tests and use the arena at least `uses` times.
    """

    name: str
    tests: tuple[str, ...]
    part: Literal["quick", "full", "both"] = "both"
    seconds: float = 300
    plugin: str = ""  # the pytest plugin that puts ours in the stock one's place; none for Numba
    keyword: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    passes: int = 1
    uses: int = 1

    @property
    def host(self) -> str:
        return self.name.split()[0]

    def is_in(self, part: str) -> bool:
        return self.part in (part, "both")


@dataclass
class Outcome:
    """What became of a suite's tests; `troubles` is empty if nothing is unexplained."""

    suite: Suite
    seconds: float
    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    left_out: dict[str, Difference] = field(default_factory=dict)
    differs: dict[str, Difference] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # test: its traceback
    uses: int = 0
    troubles: list[str] = field(default_factory=list)


def run(suite: Suite, *, stock: bool = False) -> Outcome:
    """Run the suite, with the stock threads if `stock`: nothing is expected to differ then, nor ours to be used."""
    known = [] if stock else differences(suite.name)
    left_out = [difference for difference in differences(suite.name) if difference.kind == "left out"]
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "record")
        root = _root(suite, Path(folder, "host"))
        env = {
            "PYTHONPATH": os.pathsep.join([str(PLUGINS), str(Path(folder, "host"))]),
            "PYTEST_ADDOPTS": "",
            "CONFORMANCE_RECORD": str(record),
            "CONFORMANCE_LEFT_OUT": json.dumps([difference.pattern.pattern for difference in left_out]),
            "CONFORMANCE_STOCK": "1" if stock else "",
            **suite.env,
        }
        began = time.monotonic()
        trouble = said = ""
        try:
            done = run_fresh(_code(suite), args=_arguments(suite, root), env=env, timeout=suite.seconds)
        except AssertionError as not_finished:
            trouble = str(not_finished)
        else:
            said = f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        outcome = Outcome(suite, time.monotonic() - began)
        entries = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    begun: list[str] = []
    for entry in entries:
        outcome.uses += entry.get("uses", 0)
        if "begin" in entry:
            begun.append(entry["begin"])
        elif "end" in entry:
            if entry["end"] in begun:
                begun.remove(entry["end"])
            _sort_in(outcome, entry, known or left_out)
    outcome.failed.update((test, "did not end") for test in begun)
    if not trouble and done.returncode and not (done.returncode == 1 and (outcome.failed or outcome.differs)):
        trouble = said
    if trouble:
        outcome.troubles.append(trouble[-6000:])
    _judge(outcome, stock)
    return outcome


def _code(suite: Suite) -> str:
    return _RUN_NUMBA if suite.host == "numba" else _RUN_PYTEST


def _root(suite: Suite, folder: Path) -> Path:
    from importlib.util import find_spec

    installed = Path(find_spec(suite.host).origin).parent
    if suite.host != "distributed":
        return installed
    from conformance.distributed_suites import put_together

    return put_together(installed, folder)


def _arguments(suite: Suite, root: Path) -> list[str]:
    if suite.host == "numba":
        return ["-v", *suite.tests]
    found = [str(root / file) for file in suite.tests if (root / file).exists()]
    assert len(found) > len(suite.tests) / 2, f"{suite.name}: hardly any of its files are installed in {root}"
    return [*_PYTEST_OPTIONS, "-p", suite.plugin, *(["-k", suite.keyword] if suite.keyword else []), *found]


def _sort_in(outcome: Outcome, entry: dict[str, str], known: list[Difference]) -> None:
    test = entry["end"]
    difference = next((one for one in known if one.pattern.fullmatch(test)), None)
    if entry["outcome"] == "left out":
        outcome.left_out[test] = difference
    elif entry["outcome"] == "skipped":
        outcome.skipped.append(test)
    elif entry["outcome"] == "passed":
        outcome.passed.append(test)
        if difference and difference.kind == "differs":
            outcome.troubles.append(f"{test} passes, but is expected to differ: {difference.reason}")
    elif difference:
        outcome.differs[test] = difference
    else:
        outcome.failed[test] = entry["text"]


def _judge(outcome: Outcome, stock: bool) -> None:
    outcome.troubles += [f"{test} failed\n{text[-3000:]}" for test, text in outcome.failed.items()]
    if stock:
        return
    if len(outcome.passed) < outcome.suite.passes:
        outcome.troubles.append(f"only {len(outcome.passed)} tests passed; there should be {outcome.suite.passes}")
    if outcome.uses < outcome.suite.uses:
        outcome.troubles.append(f"the arena was used {outcome.uses} times only; it should be {outcome.suite.uses}")
