"""Executes the notebooks and looks at what they leave behind: ``python -m tests.notebooks [NAME ...]``.

Each runs in a kernel of its own, in an empty directory, cell by cell; a cell that raises ends it. Then the statements
of `LEFT_BEHIND` are executed in the kernel. What was measured is never judged, only that it was measured. Without
names all of them run. The exit code is 1 if any failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
LIMIT = 300.0  # seconds for one notebook; it takes two minutes at most on two cores that have nothing else to do

# By notebook, what must hold for the objects in its namespace.
LEFT_BEHIND = {
    "1_problem_and_cure": """
        assert cleaned.shape == photograph.shape
        assert np.abs(cleaned - photograph).mean() < np.abs(copies[0] - photograph).mean() / 1.3
        assert [len(runs[kind]) for kind in ("stock", "composable")] == [2, 2] or not runs["stock"][-1]["finished"]
        assert runs["composable"][-1]["finished"]
        assert all(len(samples) == 3 and min(samples) > 0 for found in times.values() for samples in found.values())
        assert set(times["clean.py"]) == set(times["alike.py"]) == {"as it is", "1 thread by hand", "composable"}
        assert len(result.stock) == len(result.composable) == 1 and result.composable[0].finished
    """,
    "2_numba": """
        assert set(times) == {"alone", "uneven", "nested", "crowded"}
        assert all(len(found["composable"]) == 2 for found in times.values()), times
        assert [len(found) for found in answers.values()] == [1, 1, 1, 1], answers
        assert answers["nested"] == answers["alone"] == answers["crowded"]
        assert reports["composable"] == "ValueError a negative number; " * 2, reports
    """,
    "3_joblib": """
        alone = GridSearchCV(model, grid, cv=2).fit(x, y)
        assert search.best_params_ == alone.best_params_ and search.best_score_ == alone.best_score_
        assert boosting.composable[-1].finished and len(boosting.composable) == 2
        assert all(len(found) == 2 and min(map(min, found)) > 0 for found in times.values())
        assert set(costs) == {"loky", "threading", "composable"} and min(map(min, costs.values())) > 0
    """,
    "4_dask": """
        assert np.allclose(strength, expected) and patterns.shape == (144, 144)
        assert all(len(samples) == 3 and min(samples) > 0 for samples in times.values()) and len(times) == 3
        assert set(costs) == {"sync", "threads", "composable"} and min(map(min, costs.values())) > 0
        assert np.allclose(mean, pieces.mean(axis=0)) and profiler.results
    """,
    "5_blas": """
        assert set(alone[0]) == {P}, alone
        assert min(width for seen in together for width in seen) == 1
        assert width_now() == P
        found = {answer for way, samples in runs.items() for _, answer in samples if answer is not None}
        assert len(found) == 1 and found.pop()[0] < 30
        assert all(len(samples) == 3 and min(samples) > 0 for samples in times.values()) and len(times) == 3
    """,
    "6_timeline": """
        assert same
        assert [summary["slots"] for summary in summaries.values()] == [P] * 3
        assert [summary["count"]["task"] for summary in summaries.values()] == [2 * P + 1] * 3
        assert third.summary()["count"]["region"] == 2 * P + 1 and first.summary()["count"]["region"] == 0
        assert all(summary["dropped"] == 0 and 0 <= summary["unused_share"] < 1 for summary in summaries.values())
        assert any(event.get("ph") == "X" for event in events)
    """,
}


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def execute(name: str, *, limit: float = LIMIT) -> None:
    """Run one notebook; raises what nbclient raises for a cell that fails, TimeoutError after `limit` seconds."""
    import nbformat
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"if True:{LEFT_BEHIND[name]}"))
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in a directory: no ports, which something else could take.
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        client = NotebookClient(notebook, km=manager, timeout=None, resources={"metadata": {"path": folder}})

        async def run() -> None:
            try:
                await asyncio.wait_for(client.async_execute(), limit)
            finally:  # a manager that nbclient was given is ours to end
                await manager.shutdown_kernel(now=True)

        asyncio.run(run())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.notebooks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds for each (default {LIMIT:g})")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names()):
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    failed = 0
    for name in options.names or names():
        started = time.monotonic()
        try:
            execute(name, limit=options.limit)
            outcome = "passed"
        except TimeoutError:
            outcome = f"FAILED: not done after {options.limit:g} s"
        except Exception as error:
            outcome = f"FAILED\n{error}"
        failed += outcome != "passed"
        print(f"{name}: {time.monotonic() - started:.1f} s, {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
