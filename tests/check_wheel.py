"""Checks an installed wheel without its source: ``python tests/check_wheel.py``, in an environment that has it and NumPy.

What must be in it is there, nothing else is, libtbb is the environment's or the system's and not a copy, and the arena
computes. Exits with 1 and says what is wrong. cibuildwheel runs it for each wheel.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

NAME = "composable-threads"
NEEDED = (
    "_composable_threads_boot.py",
    "composable_threads.pth",
    "composable_threads.start",
    "composable_threads/_native.pyi",
    "composable_threads/dask_backend/hook.py",
    "composable_threads/joblib_backend/hook.py",
    "composable_threads/numba_layer/hook.py",
    "composable_threads/py.typed",
)
FOLDERS = {"composable_threads", "_composable_threads_boot.py", "composable_threads.pth", "composable_threads.start"}

COMPUTES = """
import numpy as np
import composable_threads as c
matrix = np.eye(50) * 2
with c.Executor(2) as executor, c.ThreadPool(2) as pool:
    inverses = [*executor.map(np.linalg.inv, [matrix] * 8), *pool.map(np.linalg.inv, [matrix] * 8)]
assert all((inverse == matrix / 4).all() for inverse in inverses)
print(c.info()["tbb"]["path"])
"""


def problems() -> list[str]:
    found = []
    files = {str(path) for path in metadata.files(NAME) or ()}
    found += [f"{name} is missing" for name in NEEDED if name not in files]
    natives = [name for name in files if name.startswith("composable_threads/_native.") and name.endswith(".so")]
    if len(natives) != 1:
        found.append(f"one native module is expected, not {natives}")
    if not any(name.endswith("LICENSE") for name in files):
        found.append("the licence is missing")
    others = {name.split("/")[0] for name in files if "__pycache__" not in name} - FOLDERS
    found += [f"{name} is not ours" for name in others if not name.endswith(".dist-info")]
    found += [f"{name} is a copy of oneTBB" for name in files if "libtbb" in name and ".so" in name]
    done = subprocess.run([sys.executable, "-c", COMPUTES], capture_output=True, text=True)
    if done.returncode != 0 or done.stderr:
        found.append(f"it does not compute:\n{done.stdout}{done.stderr}")
    else:
        print(f"{NAME} {metadata.version(NAME)} computes with {done.stdout.strip()}")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems()) or None)
