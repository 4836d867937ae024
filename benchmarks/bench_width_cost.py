"""What does a task cost the core, and what do widths add, with every BLAS and OpenMP library in the process?

Per task, start and end together, without Python: "alone" as the only one, so that all widths change twice, "queued"
from a queue. The bound is 200 ns with all libraries. Peers: no library, and neither load nor widths ("uncounted").
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

from .harness import OURS, Case, Peer, Question

SOURCE = Path(__file__).parents[1]


@functools.cache
def binary() -> str:
    """Build the program into a temporary folder, with CMake, as the core's tests are; takes half a minute."""
    folder = tempfile.mkdtemp(prefix="composable-bench-")
    options = (
        "CMAKE_BUILD_TYPE=Release",
        "COMPOSABLE_PYTHON=OFF",
        "COMPOSABLE_TESTS=ON",
        f"Python_EXECUTABLE={sys.executable}",
    )
    tool = [sys.executable, "-m", "cmake"]
    for command in (
        [*tool, "-S", SOURCE, "-B", folder, "-G", "Ninja", *(f"-D{option}" for option in options)],
        [*tool, "--build", folder, "--target", "width_cost"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(Path(folder) / "width_cost")


QUESTION = Question(
    name="width_cost",
    text="start and end of one task in the core",
    cases=tuple(Case(name, "width_cost.py", (name, binary())) for name in ("alone", "queued", "uncounted")),
    peers=(
        Peer(OURS, extra=("all",)),
        Peer("no library", extra=("none",)),
    ),
)
