"""The tasks of ``cluster.py``, in a module of their own so that workers import them, and make their data once."""

from __future__ import annotations

from functools import cache

import numpy as np
from kernel import square_roots

# Name -> how many of them one measured round runs.
ROUNDS = {"numba": 64, "qr": 16, "boosting": 8, "trivial": 2000}


@cache
def _random(*shape):
    return np.random.default_rng(0).random(shape)


def numba(i):
    return float(square_roots()(_random(200_000), 50)[0])


def qr(i):
    return np.linalg.qr(_random(500, 500))[1].shape


def boosting(i):
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = _random(5_000, 20)
    HistGradientBoostingClassifier(max_iter=20, random_state=i).fit(x, (x[:, 0] + x[:, 1] > 1).astype(int))


def trivial(i):
    return i
