"""A Numba kernel that nests in tasks."""

from __future__ import annotations

from functools import cache

import numpy as np


@cache
def square_roots():
    """``kernel(a, rounds)``: so many parallel regions over `a`, each of which takes square roots."""
    from numba import njit, prange  # when it is asked for: other programs do without

    @njit(parallel=True, nogil=True)
    def kernel(a, rounds):
        out = np.empty_like(a)
        for r in range(rounds):
            for i in prange(a.shape[0]):
                out[i] = np.sqrt(a[i] * a[i] + r)
        return out

    return kernel
