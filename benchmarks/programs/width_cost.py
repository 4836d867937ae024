"""Runs the core's own ``width_cost``, with all of the environment's libraries or none.

``width_cost.py CASE BINARY all|none``
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

# Distribution -> begin of the file name of the library that it brings.
LIBRARIES = {
    "numpy": ("libscipy_openblas", "libopenblas"),
    "scipy": ("libscipy_openblas", "libopenblas"),
    "scikit-learn": ("libgomp",),
    "mkl": ("libmkl_rt.",),
    "intel-openmp": ("libiomp5.so",),
}


def installed() -> list[Path]:
    found = []
    for distribution, names in LIBRARIES.items():
        try:
            files = importlib.metadata.files(distribution) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found += [Path(file.locate()).resolve() for file in files if file.name.startswith(names)][:1]
    return found


def main(case: str, binary: str, which: str) -> None:
    paths = installed() if which == "all" else []
    env = dict(os.environ, MKL_THREADING_LAYER="TBB")
    # Of the wheels' own helper libraries, such as libgfortran.
    env["LD_LIBRARY_PATH"] = os.pathsep.join([str(path.parent) for path in paths] + [os.path.join(sys.prefix, "lib")])
    os.execve(binary, [binary, case, *map(str, paths)], env)


if __name__ == "__main__":
    main(*sys.argv[1:])
