"""Nested-parallel programs as users write them: ``nested.py NAME WORKERS``. Nothing here knows of any cure."""

from __future__ import annotations

import sys
from multiprocessing.pool import ThreadPool

import numpy as np
from kernel import square_roots
from measure import measure


def numba_kernel():
    kernel = square_roots()
    a = np.random.rand(200_000)
    kernel(a, 2)
    return lambda _=0: kernel(a, 50)


def dask_numba(workers):
    import dask

    kernel = numba_kernel()
    tasks = [dask.delayed(kernel)(i) for i in range(64)]
    return lambda: dask.compute(*tasks, scheduler="threads", num_workers=workers)


def joblib_numba(workers):
    from joblib import Parallel, delayed

    kernel = numba_kernel()
    return lambda: Parallel(workers, backend="threading")(delayed(kernel)(i) for i in range(64))


def pool_numba(workers):
    kernel, pool = numba_kernel(), ThreadPool(workers)
    return lambda: pool.map(kernel, range(64))


def pool_qr(workers):
    a, pool = np.random.rand(500, 500), ThreadPool(workers)
    return lambda: pool.map(np.linalg.qr, [a] * 16)


def pool_eig(workers):
    a, pool = np.random.rand(256, 256), ThreadPool(workers)
    return lambda: pool.map(np.linalg.eig, [a] * 32)


def pool_matmul(workers):
    a, pool = np.random.rand(700, 700), ThreadPool(workers)
    return lambda: pool.map(lambda x: x @ x, [a] * 24)


def tail_matmul(workers):
    """Three big products for two cores: the last one should not run alone on one of them."""
    a, pool = np.random.rand(1600, 1600), ThreadPool(workers)
    return lambda: pool.map(lambda x: x @ x, [a] * 3, chunksize=1)


def alone_matmul(_):
    """No pool at all."""
    a = np.random.rand(1600, 1600)
    return lambda: a @ a


def dask_qr(workers):
    import dask.array as da

    x = da.random.random((44_000, 200), chunks=(2_000, 200)).persist()

    def run():
        q, r = da.linalg.qr(x)
        assert da.all(da.isclose(x, q.dot(r))).compute(scheduler="threads", num_workers=workers)

    return run


def joblib_boosting(workers):
    from joblib import Parallel, delayed
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.random.rand(5_000, 20)
    y = (x[:, 0] + x[:, 1] > 1).astype(int)

    def fit(seed):
        HistGradientBoostingClassifier(max_iter=20, random_state=seed).fit(x, y)

    return lambda: Parallel(workers, backend="threading")(delayed(fit)(i) for i in range(8))


def pool_kmeans(workers):
    from sklearn.cluster import KMeans

    x, pool = np.random.rand(4_000, 10), ThreadPool(workers)
    return lambda: pool.map(lambda s: KMeans(8, n_init=1, random_state=s, max_iter=50, tol=0).fit(x), range(16))


if __name__ == "__main__":
    measure(globals()[sys.argv[1]](int(sys.argv[2])))
