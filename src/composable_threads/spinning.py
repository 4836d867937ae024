"""How long idle helper threads of BLAS and OpenMP libraries spin before they sleep: 134 ms after every OpenBLAS call by
default, 10 ms after every region of libgomp, 200 ms of Intel's OpenMP, against everybody else.

Each library reads a variable for it, once, when it is loaded. An activation sets those that the user has not, for the
libraries only: the program's own ``os.environ`` stays what it is.
"""

from __future__ import annotations

import os
from typing import Any

from . import _native

# Begin of a file name -> variable, its value, others with which the user has said it.
_LIMITS = {
    "libopenblas": ("OPENBLAS_THREAD_TIMEOUT", "4", ()),
    "libscipy_openblas": ("OPENBLAS_THREAD_TIMEOUT", "4", ()),
    "libgomp": ("GOMP_SPINCOUNT", "10000", ("OMP_WAIT_POLICY",)),
    "libiomp5": ("KMP_BLOCKTIME", "1", ("OMP_WAIT_POLICY",)),
    "libomp": ("KMP_BLOCKTIME", "1", ("OMP_WAIT_POLICY",)),
}
_set: list[str] = []
_loaded_before: set[str] = set()  # paths of libraries that were there before the variables
_limited: set[str] = set()  # paths of those that were loaded while they were set


def begin_limits() -> None:
    """Set the variables that the user has not."""
    for name, value, others in _LIMITS.values():
        if not any(said in os.environ for said in (name, *others)) and name not in _set:
            os.putenv(name, value)
            _set.append(name)
    # Afterwards: asking Intel's OpenMP for its width makes it read its variable.
    _loaded_before.update(_paths() - _limited)


def end_limits() -> None:
    """Take them back, but for those that the program has set meanwhile."""
    _limited.update(_paths() - _loaded_before)
    _loaded_before.clear()
    while _set:
        name = _set.pop()
        if name not in os.environ:
            os.unsetenv(name)


def limit_of(library: dict[str, Any]) -> str | None:
    """What bounds the spinning of a row of ``info()["libraries"]``: ``NAME=value``, or None where nothing does.

    What the user has set counts, also where it was set too late: when a library was loaded is known, when a variable
    was set is not.
    """
    found = _limit_for(library["path"])
    if found is None:
        return None
    name, value, others = found
    for said in (name, *others):
        if said in os.environ:
            return f"{said}={os.environ[said]}"
    path = library["path"]
    if path in _limited or (name in _set and path not in _loaded_before):
        return f"{name}={value}"
    return None


def advice(libraries: list[dict[str, Any]]) -> list[str]:
    """A sentence for every variable that could not be set before a library was loaded."""
    late: dict[str, list[str]] = {}
    for library in libraries:
        found = _limit_for(library["path"])
        if found is not None and library["scope"] in ("process", "thread") and limit_of(library) is None:
            late.setdefault(f"{found[0]}={found[1]}", []).append(library["path"])
    return [
        f"{' and '.join(os.path.basename(path) for path in paths)}: loaded without {variable}, so idle helper threads "
        "spin against other tasks. Use python -m composable_threads, or call activate() before the first import that "
        f"brings the library, or start the program with {variable}."
        for variable, paths in late.items()
    ]


def _limit_for(path: str | None) -> tuple[str, str, tuple[str, ...]] | None:
    name = os.path.basename(path or "")
    return next((limit for begin, limit in _LIMITS.items() if name.startswith(begin)), None)


def _paths() -> set[str]:
    return {library["path"] for library in _native.libraries() if library["path"] is not None}
