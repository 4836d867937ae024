"""scikit-learn's suites, with our backend as Joblib's default."""

from __future__ import annotations

from conformance.suites import Suite

SUITES = (
    Suite(
        name="sklearn parallel quick",
        part="quick",
        tests=("utils/tests/test_parallel.py", "ensemble/tests/test_forest.py", "neighbors/tests/test_neighbors.py"),
        plugin="sklearn_default",
        keyword="joblib or n_jobs or parallel",
        passes=20,
        uses=10,
    ),
    Suite(
        name="sklearn parallel",
        part="full",
        tests=(".",),
        plugin="sklearn_default",
        keyword="joblib or n_jobs or parallel",
        passes=50,
        uses=20,
        seconds=2400,
    ),
    *(
        Suite(
            name=f"sklearn {folder}",
            part="full",
            tests=(f"{folder}/tests",),
            plugin="sklearn_default",
            passes=100,
            uses=calls,
            seconds=2400,
        )
        # About as many calls as have more than one job.
        for folder, calls in (("ensemble", 60), ("neighbors", 30), ("cluster", 2))
    ),
)
