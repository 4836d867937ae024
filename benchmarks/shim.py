"""The container way: libraries believe in more CPUs than the process may use, as under a CPU quota on a large host."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "programs" / "fakecpu.c"


@functools.cache
def library() -> str:
    """Compile the shim into a temporary folder; raises CalledProcessError or FileNotFoundError without a compiler."""
    folder = Path(tempfile.mkdtemp(prefix="composable-bench-"))
    target = folder / "fakecpu.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", target, SOURCE, "-ldl"], check=True)
    return str(target)


def believe_in(cpus: int, really: int) -> dict[str, str]:
    """Environment in which every library sees `cpus`; the arena, as under a real quota, has `really` slots."""
    return {"LD_PRELOAD": library(), "FAKE_NCPU": str(cpus), "COMPOSABLE_NUM_THREADS": str(really)}
