"""scikit-learn on the arena gives the serial answers; ``inner_max_num_threads`` with the libraries it brings."""

from __future__ import annotations

import numpy as np
import pytest
from composable_threads import Executor, _native, activate, info, reset_peak
from fresh import check_fresh
from joblib import parallel_config

pytest.importorskip("sklearn")
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LassoCV, LogisticRegression, SGDClassifier
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier

# So small that few BLAS calls in it use threads: their number decides how sums are rounded, and rounding decides ties.
X, Y = load_digits(return_X_y=True)
X, Y = X[::4] / 16, Y[::4]


def forest(jobs, kind=RandomForestClassifier):
    model = kind(n_estimators=16, random_state=0, n_jobs=jobs).fit(X, Y)
    return model.predict(X), getattr(model, "predict_proba", model.predict)(X), model.feature_importances_


def grid(jobs, inner=None):
    model = RandomForestClassifier(n_estimators=6, random_state=0, n_jobs=inner)
    search = GridSearchCV(model, {"max_depth": [3, 6], "max_features": [4, 8]}, cv=3, n_jobs=jobs).fit(X, Y)
    results = search.cv_results_
    return [results[key] for key in sorted(results) if key.endswith("test_score")], search.best_params_


def near(jobs):
    return KNeighborsClassifier(algorithm="kd_tree", n_jobs=jobs)


def boosting(jobs):  # has OpenMP regions of its own inside
    return cross_val_score(HistGradientBoostingClassifier(max_iter=1, random_state=0), X, Y, cv=2, n_jobs=jobs)


def voting(jobs):
    models = [("forest", RandomForestClassifier(8, random_state=0)), ("near", near(None))]
    return VotingClassifier(models, voting="soft", n_jobs=jobs).fit(X, Y).predict_proba(X)


def importance(jobs):
    model = near(None).fit(X, Y)
    return permutation_importance(model, X[:60], Y[:60], n_repeats=2, random_state=0, n_jobs=jobs).importances


# prefer="threads" or require="sharedmem" in scikit-learn, or its default: inside the context all of them are ours.
WORK = {
    "forest": forest,
    "regression forest": lambda jobs: forest(jobs, RandomForestRegressor),
    "extra trees": lambda jobs: forest(jobs, ExtraTreesClassifier),
    "isolation forest": lambda jobs: (
        IsolationForest(n_estimators=20, random_state=0, n_jobs=jobs).fit(X).score_samples(X)
    ),
    "bagging": lambda jobs: BaggingClassifier(n_estimators=6, random_state=0, n_jobs=jobs).fit(X, Y).predict_proba(X),
    "voting": voting,
    "neighbours": lambda jobs: near(jobs).fit(X, Y).kneighbors(X),
    "pairwise": lambda jobs: pairwise_distances(X, metric="manhattan", n_jobs=jobs),
    "one against the rest": lambda jobs: (
        SGDClassifier(random_state=0, max_iter=20, tol=None, n_jobs=jobs).fit(X, Y).coef_
    ),
    "one model per class": lambda jobs: (
        OneVsRestClassifier(LogisticRegression(max_iter=300), n_jobs=jobs).fit(X, Y).decision_function(X)
    ),
    "path": lambda jobs: LassoCV(cv=3, precompute=False, n_jobs=jobs).fit(X, Y).mse_path_,
    "scores": lambda jobs: cross_val_score(LogisticRegression(max_iter=300), X, Y, cv=4, n_jobs=jobs),
    "predictions": lambda jobs: cross_val_predict(near(None), X, Y, cv=4, n_jobs=jobs),
    "boosting": boosting,
    "importance": importance,
    "grid": grid,
    "grid of parallel forests": lambda jobs: grid(jobs, jobs),
}


# Equal but for the last bits: the first adds its trees' depths in the order they end, the other uses BLAS threads.
ROUNDED = ("isolation forest", "path")


def same(one, other, tolerance):
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(same(*pair, tolerance) for pair in zip(one, other, strict=True))
    return one == other if isinstance(one, dict) else np.allclose(one, other, rtol=tolerance, atol=0)


@pytest.fixture(scope="module")
def serial():
    return {}


@pytest.mark.parametrize("jobs", [-1, 3])
@pytest.mark.parametrize(
    ("door", "work"),
    # For "pairwise" scikit-learn names the backend of threads, so only activate() reaches it.
    [("config", work) for work in WORK if work != "pairwise"] + [("activate", work) for work in WORK],
)
def test_answers_are_the_serial_ones(door, work, jobs, serial):
    if work not in serial:
        serial[work] = WORK[work](1)
    reset_peak()
    with parallel_config("composable") if door == "config" else activate():
        found = WORK[work](jobs)
    assert same(found, serial[work], 1e-12 if work in ROUNDED else 0)
    assert 0 < info()["peak_running"] <= _native.slots()


# What has OpenMP regions and BLAS calls of its own, in tasks: their teams have one thread or more as the load changes.
# Large enough that several threads share the work; clusters far enough apart that rounding decides nothing.
POINTS, CLUSTERS = make_blobs(3000, 12, centers=8, cluster_std=0.5, random_state=0)


def clusters(seed, kind=KMeans, **options):
    model = kind(8, n_init=2, random_state=seed, **options).fit(POINTS)
    return model.labels_, model.inertia_, model.cluster_centers_


def histograms(seed):
    model = HistGradientBoostingRegressor(max_iter=15, random_state=seed)
    return model.fit(POINTS, POINTS @ np.arange(12) + seed).predict(POINTS)


def classes(seed):
    model = HistGradientBoostingClassifier(max_iter=4, max_leaf_nodes=8, random_state=seed)
    return model.fit(POINTS, CLUSTERS).predict_proba(POINTS)


def searched(seed):
    model = HistGradientBoostingClassifier(max_iter=3, random_state=seed)
    search = GridSearchCV(model, {"max_leaf_nodes": [4, 8]}, cv=2, n_jobs=2)
    with parallel_config("composable"):  # known to its own thread only
        search.fit(POINTS[::4], CLUSTERS[::4])
    return search.cv_results_["mean_test_score"], search.best_params_["max_leaf_nodes"]


def trees(seed):
    with parallel_config("composable"):
        return RandomForestClassifier(8, random_state=seed, n_jobs=2).fit(POINTS, CLUSTERS).predict_proba(POINTS)


def neighbours(algorithm):
    def found(seed):
        return KNeighborsClassifier(5, algorithm=algorithm).fit(POINTS, CLUSTERS).kneighbors(POINTS[seed::5])

    return found


OPENMP_WORK = {
    "k-means, lloyd": clusters,
    "k-means, elkan": lambda seed: clusters(seed, algorithm="elkan"),
    "k-means, batches": lambda seed: clusters(seed, MiniBatchKMeans),
    "boosting, regression": histograms,
    "boosting, classes": classes,
    "boosting, searched": searched,
    "neighbours, brute": neighbours("brute"),
    "neighbours, tree": neighbours("kd_tree"),
    "distances": lambda seed: pairwise_distances(POINTS[seed::5], metric="euclidean"),
    "forest": trees,
    "components": lambda seed: np.abs(PCA(4, random_state=seed).fit_transform(POINTS)),
}


@pytest.mark.parametrize("work", OPENMP_WORK)
# Searches of scikit-learn 1.5 cast memory as they find it.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_estimators_in_tasks_give_the_serial_answers(work):
    run = OPENMP_WORK[work]
    right = [run(seed) for seed in range(4)]
    for tasks in (2, 5):
        with Executor(tasks) as executor:
            found = list(executor.map(run, [i % 4 for i in range(2 * tasks)]))
        for i, answer in enumerate(found):
            assert same(answer, right[i % 4], 1e-9)


def test_width_is_the_users_again_after_a_task_that_limited_it_itself():
    # As KMeans does. It puts back the width it found, which was the share of a task among two.
    code = """
import time
import numpy
from composable_threads import _native
_native.configure(2)
from joblib import Parallel, delayed
from threadpoolctl import threadpool_info, threadpool_limits
def widths():
    return [row["num_threads"] for row in threadpool_info() if row["user_api"] == "blas"]
def limits(i):
    deadline = time.monotonic() + 2
    with threadpool_limits(1, user_api="blas"):
        while i == 0 and _native.counts()["running"] > 1 and time.monotonic() < deadline:
            time.sleep(0.005)  # until the other task has ended and the share is larger
        assert widths() == [1]
before = widths()
for turn in range(5):
    Parallel(n_jobs=2, backend="composable")(delayed(limits)(i) for i in range(2))
    assert widths() == before, (widths(), before)
"""
    check_fresh(code)


# --- inner_max_num_threads


def test_inner_limit_holds_in_every_task_and_is_gone_afterwards():
    pytest.importorskip("threadpoolctl")
    code = """
import time
import numba, numpy, scipy.linalg, sklearn.cluster
numba.config.THREADING_LAYER = "composable"
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_info
from composable_threads import _native
_native.configure(4)
def widths():
    return sorted((row["internal_api"], row["num_threads"]) for row in threadpool_info() if row["user_api"] != "composable")
def task(i):
    seen = set()
    for _ in range(1 + 10 * (i == 3)):  # the last one is alone for a while
        time.sleep(0.005)
        seen |= {width for _, width in widths()} | {numba.get_num_threads()}
    return max(seen)
def nested():
    return max(Parallel()(delayed(task)(i) for i in range(2)))
before = widths(), numba.get_num_threads()
assert len(before[0]) > 2, before
for limit in (1, 2, 1, 2):
    with parallel_config("composable", n_jobs=2, inner_max_num_threads=limit):
        assert max(Parallel()(delayed(task)(i) for i in range(4))) <= limit
        assert max(Parallel()(delayed(nested)() for _ in range(2))) <= limit
    assert (widths(), numba.get_num_threads()) == before, (widths(), before)
"""
    check_fresh(code)


def test_inner_limit_of_a_call_that_fails_or_is_late_is_gone_too():
    pytest.importorskip("threadpoolctl")
    code = """
import multiprocessing, threading, time
import numpy
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_info
def widths():
    return [row["num_threads"] for row in threadpool_info() if row["user_api"] != "composable"]
before, held = widths(), threading.Event()
with parallel_config("composable", n_jobs=2, inner_max_num_threads=1):
    for task, error in ((lambda: 1 / 0, ZeroDivisionError), (held.wait, multiprocessing.TimeoutError)):
        try:
            Parallel(timeout=0.05)(delayed(task)() for _ in range(6))
        except error as raised:
            print(type(raised).__name__)
held.set()
deadline = time.monotonic() + 30
while widths() != before and time.monotonic() < deadline:
    time.sleep(0.01)  # until the late tasks, which nobody waits for, have ended
print(widths() == before)
"""
    assert check_fresh(code) == "ZeroDivisionError\nTimeoutError\nTrue\n"
