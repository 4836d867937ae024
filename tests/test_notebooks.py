"""The notebooks run, and are committed without outputs; ``python -m tests.notebooks`` runs all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import notebooks

ALL = notebooks.names()
QUICK = ["6_timeline"]  # the others measure programs again and again: a second command


def test_there_are_six_and_each_is_looked_at() -> None:
    assert [name[0] for name in ALL] == list("123456") and set(ALL) == set(notebooks.LEFT_BEHIND)


@pytest.mark.parametrize("name", ALL)
def test_committed_without_outputs_or_counts(name: str) -> None:
    text = (notebooks.FOLDER / f"{name}.ipynb").read_text()
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len(text) < 20_000
    assert max(len(line.rstrip("\n")) for cell in notebook["cells"] for line in cell["source"]) <= 150


@pytest.mark.parametrize("name", ALL)
def test_states_the_machine_and_draws(name: str) -> None:
    notebook = json.loads((notebooks.FOLDER / f"{name}.ipynb").read_text())
    code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert "composable_threads.info()" in code and "plt.subplots(" in code


@pytest.mark.parametrize("name", QUICK)
def test_runs_and_leaves_what_it_promises(name: str) -> None:
    run(name, limit=notebooks.LIMIT)


def test_cell_that_fails_fails_the_command(tmp_path: Path) -> None:
    # The assertions on what a notebook leaves are a cell too.
    code = f"""
import sys
sys.path.insert(0, {str(Path(notebooks.__file__).parent)!r})
import notebooks
notebooks.FOLDER = __import__("pathlib").Path({str(tmp_path)!r})
notebooks.LEFT_BEHIND = {{"good": " assert a == 1", "bad": " assert a == 2"}}
sys.exit(notebooks.main())
"""
    cell = {"cell_type": "code", "id": "1", "metadata": {}, "source": "a = 1", "outputs": [], "execution_count": None}
    text = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    for name in ("bad", "good"):
        (tmp_path / f"{name}.ipynb").write_text(text)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("bad: ") and "AssertionError" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("good: ") and done.stdout.endswith("passed\n")


def run(name: str, *, limit: float) -> None:
    """In a process of its own: the client and its kernel are none of the test process's."""
    command = [sys.executable, notebooks.__file__, name, "--limit", str(limit)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=limit + 60)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # the kernel ends by itself when its parent is gone
        process.communicate()
        raise
    assert process.returncode == 0, output
