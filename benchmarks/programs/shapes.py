"""The programs of the literature on composability, scaled to two cores: ``shapes.py NAME``.

Shapes after A. Malakhov et al., "Composable Multi-Threading and Multi-Processing for Numeric Libraries" (SciPy 2018)
and its recommender of 2016: pools and Dask graphs of BLAS calls, balanced and not.
"""

from __future__ import annotations

import sys
from multiprocessing.pool import ThreadPool

import dask.array as da
import numpy as np
from measure import measure


def eig_balanced():
    a, pool = np.random.rand(128, 128), ThreadPool(16)
    return lambda: pool.map(np.linalg.eig, [a] * 64, chunksize=1)


def eig_unbalanced():
    """A few large products, then many small factorisations in chunks too large for the pool."""
    large, small, pool = np.random.rand(800, 800), np.random.rand(96, 96), ThreadPool(16)

    def run():
        pool.map(lambda x: x @ x, [large] * 4, chunksize=4)
        pool.map(np.linalg.eig, [small] * 64, chunksize=32)

    return run


def qr_small():
    a, pool = np.random.rand(200, 200), ThreadPool(10)
    return lambda: pool.map(np.linalg.qr, [a] * 40)


def matmul_balanced():
    a, pool = np.random.rand(400, 400), ThreadPool(16)
    return lambda: pool.map(lambda x: x @ x, [a] * 64, chunksize=1)


def check_qr(x):
    q, r = da.linalg.qr(x)
    assert da.all(da.isclose(x, q.dot(r))).compute(scheduler="threads")


def dask_qr_balanced():
    x = da.random.random((16_000, 128), chunks=(1_000, 128)).persist()
    return lambda: check_qr(x)


def dask_qr_unbalanced():
    parts = [da.random.random((16_000, 128), chunks=(16_000 // n, 128)).persist() for n in (1, 8, 16)]
    return lambda: [check_qr(x) for x in parts]


def recommender():
    """Collaborative filtering: a product, then a parallel gufunc over its rows, in a Dask graph over users."""
    from numba import guvectorize

    @guvectorize(["void(float64[:], float64[:], float64[:])"], "(n),(n)->(n)", target="parallel")
    def recommend(scores, known, out):
        total = 0.0
        for i in range(scores.size):
            total += scores[i] * scores[i]
        norm = np.sqrt(total) + 1e-9
        for i in range(scores.size):
            out[i] = scores[i] / norm if known[i] < 0.5 else 0.0

    features, users = 200, 20_000
    similar = np.random.rand(features, features)
    ratings = da.from_array((np.random.rand(users, features) > 0.9).astype(float), chunks=(1_000, features))
    recommend(np.zeros((2, features)), np.zeros((2, features)))

    def block(part):
        return recommend(part @ similar, part)

    return lambda: ratings.map_blocks(block, dtype=float).sum(axis=0).compute(scheduler="threads")


if __name__ == "__main__":
    measure(globals()[sys.argv[1]]())
