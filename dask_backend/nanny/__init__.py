"""Widths that a nanny sets in its worker's environment: what it says of them (`hook.py`), and what they hold back."""

from __future__ import annotations

import os

from .hook import VARIABLE

# Kind of library -> the variables that it reads, the first one that is set counts.
_READ = {
    "openblas": ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
    "openmp": ("OMP_NUM_THREADS",),
    "mkl": ("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
}


def imposed_widths() -> dict[str, int]:
    """Width by kind of library where the nanny chose it, and not the user."""
    nannys = os.environ.get(VARIABLE, "").split(",")
    widths = {}
    for kind, names in _READ.items():
        name = next((name for name in names if name in os.environ), None)
        if name in nannys and os.environ[name].isdecimal():
            widths[kind] = int(os.environ[name])
    return widths
