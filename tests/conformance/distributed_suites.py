"""distributed's suites: tests of what runs in a worker's threads, with the arena's in their place.

No package of distributed brings its tests: they are taken from a checkout of its repository, at about the version that
is installed, which ``CONFORMANCE_DISTRIBUTED`` names.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from conformance.suites import Suite

CHECKOUT = os.environ.get("CONFORMANCE_DISTRIBUTED", "")
_PRIMITIVES = "actor as_completed cancelled_state events failed_workers locks queues resources semaphore variable"


def is_there() -> bool:
    """Whether there are tests to run."""
    return Path(CHECKOUT, "distributed", "tests").is_dir() and bool(CHECKOUT)


def put_together(installed: Path, folder: Path) -> Path:
    """Copy the installed package into `folder`, with the checkout's tests and its conftest.py; returns its root."""
    if not is_there():
        raise LookupError(
            "distributed's packages have no tests; CONFORMANCE_DISTRIBUTED must name a checkout of "
            f"github.com/dask/distributed, not {CHECKOUT!r}"
        )
    root = folder / "distributed"
    shutil.copytree(installed, root)
    source = Path(CHECKOUT, "distributed")
    for tests in source.rglob("tests"):
        shutil.copytree(tests, root / tests.relative_to(source), dirs_exist_ok=True)
    shutil.copy(Path(CHECKOUT, "conftest.py"), folder)
    return root


def _file(name: str) -> str:
    return f"tests/test_{name}.py"


SUITES = (
    Suite(
        name="distributed threads",
        tests=tuple(map(_file, ("worker_client", "client_executor"))),
        plugin="distributed_plugin",
        passes=30,
        uses=100,
        seconds=400,
    ),
    Suite(
        name="distributed tasks",
        part="full",
        tests=(*map(_file, _PRIMITIVES.split()), "diagnostics/tests/test_worker_plugin.py"),
        plugin="distributed_plugin",
        passes=250,
        uses=500,
        seconds=1800,
    ),
    Suite(
        name="distributed worker",
        part="full",
        tests=(_file("worker"),),
        plugin="distributed_plugin",
        passes=120,
        uses=300,
        seconds=1200,
    ),
    Suite(
        name="distributed client",
        part="full",
        tests=(_file("client"),),
        plugin="distributed_plugin",
        passes=300,
        uses=1000,
        seconds=3600,
    ),
)
