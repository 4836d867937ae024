"""The programs of `examples/` run as their docstrings say; each checks its own answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh import check_fresh

pytest.importorskip("sklearn")
pytest.importorskip("distributed")

EXAMPLES = Path(__file__).parents[1] / "examples"
RUN = """
import subprocess, sys
def run(*command):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done
    return done.stdout
"""


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["-m", "composable_threads", "photographs.py", "--copies", "4"], "as in a serial run"),
        (["-m", "composable_threads", "classifiers.py"], "as in a serial run"),
        (["classifiers.py", "--backend", "composable"], "as in a serial run"),
        (["cluster.py"], "as in one process"),
    ],
    ids=" ".join,
)
def test_example_finds_its_answer_right(command, says):
    command = [str(EXAMPLES / word) if word.endswith(".py") else word for word in command]
    # Two tests run at once, and OpenMP's threads would wait for the other one's core by spinning.
    env = {"OMP_WAIT_POLICY": "PASSIVE"}
    assert check_fresh(RUN + f"print(run(*{command}))", env=env, timeout=180).strip().endswith(says)


@pytest.mark.parametrize("option", [[], ["--stock"]], ids=["composable", "stock"])
def test_cluster_example_runs_on_somebody_elses_cluster_and_leaves_it_as_it_was(option):
    code = f"""
from distributed import Client, LocalCluster
def look(dask_worker):
    return type(dask_worker.executors["default"]).__name__
options = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
with LocalCluster(**options) as cluster, Client(cluster) as client:
    print(run({str(EXAMPLES / "cluster.py")!r}, cluster.scheduler_address, *{option}))
    print(*set(client.run(look).values()))
"""
    answer, *_, workers = check_fresh(RUN + code, timeout=180, allow_stderr=True).splitlines()
    assert answer.endswith("as in one process") and workers == "ThreadPoolExecutor"
