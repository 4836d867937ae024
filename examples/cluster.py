"""Compare three classifiers of handwritten digits on a cluster: tasks of dask.distributed that are parallel themselves.

    python examples/cluster.py                          # two worker processes on this machine
    python examples/cluster.py tcp://scheduler:8786     # any cluster; its workers need the packages imported here
    python examples/cluster.py --stock                  # the workers keep their own threads

The 1,797 digits are scikit-learn's own. Each task fits one model to most of them and counts how many of the others it
gets right: nearest neighbours by a Numba kernel, least squares by a QR factorisation (BLAS), gradient boosting
(OpenMP). A last round goes through Joblib, whose calls in tasks spread over the cluster again. Every count is checked
against that of one thread here.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

import numpy as np
from dask import delayed
from distributed import Client, LocalCluster
from joblib import Parallel, parallel_config
from joblib import delayed as call
from numba import njit, prange
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

FOLDS = 4


@njit(parallel=True)
def nearest(known, asked):
    """For each row of `asked` (m, d) the index of the closest row of `known` (n, d)."""
    found = np.empty(len(asked), np.int64)
    for i in prange(len(asked)):
        best, closest = np.inf, 0
        for j in range(len(known)):
            distance = 0.0
            for k in range(known.shape[1]):
                distance += (known[j, k] - asked[i, k]) ** 2
            if distance < best:
                best, closest = distance, j
        found[i] = closest
    return found


def neighbours(x, y, asked):
    return y[nearest(x, asked)]


def least_squares(x, y, asked):
    """The digit whose indicator a linear fit makes largest; with products of pixels, so that there is work to do."""

    def features(rows):
        return np.hstack([np.ones((len(rows), 1)), rows, rows[:, :-1] * rows[:, 1:], rows[:, :-8] * rows[:, 8:]])

    q, r = np.linalg.qr(features(x) + 1e-3 * np.random.default_rng(0).standard_normal((len(x), 184)))
    weights = np.linalg.solve(r, q.T @ (y[:, None] == np.arange(10)))
    return (features(asked) @ weights).argmax(axis=1)


def boosting(x, y, asked):
    return HistGradientBoostingClassifier(max_iter=4, random_state=0).fit(x, y).predict(asked)


MODELS = (neighbours, least_squares, boosting)


def right(model, x, y, fold):
    """How many digits of a fold (train, test) the model gets right, fitted to the rest."""
    train, test = fold
    return int((model(x[train], y[train], x[test]) == y[test]).sum())


def right_in_all(model, x, y, folds):
    """The same for many folds: a Joblib call, which in a task of the cluster is spread over the cluster."""
    return sum(Parallel(n_jobs=-1)(call(right)(model, x, y, fold) for fold in folds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", help="of a scheduler; default: two processes, started for the run")
    parser.add_argument("--stock", action="store_true", help="leave the workers their own threads")
    options = parser.parse_args()

    x, y = load_digits(return_X_y=True)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y))
    with ExitStack() as stack:
        where = options.address or stack.enter_context(
            LocalCluster(n_workers=2, processes=True, dashboard_address=":0")
        )
        client = stack.enter_context(Client(where))
        if not options.stock:
            from composable_threads.dask_backend import ComposablePlugin

            client.register_plugin(ComposablePlugin())
            if options.address:  # somebody else's: leave it as it was
                stack.callback(client.unregister_worker_plugin, ComposablePlugin.name)
        data = [delayed(part) for part in (x, y)]
        tasks = [delayed(right)(model, *data, fold) for model in MODELS for fold in folds]
        counts = client.gather(client.compute(tasks))
        found = {model.__name__: sum(counts[i * FOLDS : (i + 1) * FOLDS]) for i, model in enumerate(MODELS)}
        with parallel_config("dask"):
            totals = Parallel()(call(right_in_all)(model, x, y, folds) for model in MODELS)
        again = dict(zip(found, totals, strict=True))

    with threadpool_limits(1):
        own = {model.__name__: sum(right(model, x, y, fold) for fold in folds) for model in MODELS}
    if not found == again == own:
        print(f"wrong answer: {found} by Dask, {again} by Joblib on Dask, {own} in one process", file=sys.stderr)
        return 1
    print(*(f"{name}: {count} of {len(y)} digits" for name, count in found.items()), "as in one process", sep=", ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
