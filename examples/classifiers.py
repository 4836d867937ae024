"""Choose a classifier of handwritten digits: Joblib tasks that fit scikit-learn models, which are parallel themselves.

    python examples/classifiers.py                              # as it is
    python -m composable_threads examples/classifiers.py        # the same program on one pool
    python -m composable_threads compare examples/classifiers.py

The 1,797 digits are scikit-learn's own. Gradient boosting uses OpenMP, the nearest neighbours use OpenMP and BLAS, the
forest uses Joblib again. Every accuracy is checked against a serial run.
"""

from __future__ import annotations

import argparse
import sys

from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

FOLDS = 4


def candidates():
    """Models by name; each is deterministic."""
    models = {f"boosting, {leaves} leaves": boosting(leaves) for leaves in (7, 15)}
    for count in (20, 40):
        models[f"neighbours in {count} dimensions"] = make_pipeline(PCA(count, random_state=0), KNeighborsClassifier(5))
    models["forest"] = RandomForestClassifier(100, random_state=0, n_jobs=-1)
    return models


def boosting(leaves):
    return HistGradientBoostingClassifier(max_iter=15, max_leaf_nodes=leaves, random_state=0)


def accuracy(model, x, y, train, test):
    """Share of the test digits that the model, fitted to the others, gets right."""
    return clone(model).fit(x[train], y[train]).score(x[test], y[test])


def evaluate(x, y, names=None):
    """Mean accuracy of every candidate over the folds, computed by one Joblib call."""
    models = {name: model for name, model in candidates().items() if names is None or name in names}
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y))
    tasks = [delayed(accuracy)(model, x, y, train, test) for model in models.values() for train, test in folds]
    scores = Parallel(n_jobs=-1)(tasks)
    return {name: sum(scores[i * FOLDS : (i + 1) * FOLDS]) / FOLDS for i, name in enumerate(models)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backend", default="threading", help="Joblib backend, for instance composable (default: threading)"
    )
    backend = parser.parse_args().backend

    x, y = load_digits(return_X_y=True)
    with parallel_config(backend, n_jobs=-1):
        found = evaluate(x, y)

    with parallel_config("sequential"):
        serial = evaluate(x, y)
    if found != serial:
        print(f"wrong answer: {found} in parallel, {serial} in a serial run", file=sys.stderr)
        return 1
    best = max(found, key=found.get)
    print(f"{len(found)} models, best: {best} with {found[best]:.4f}, as in a serial run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
