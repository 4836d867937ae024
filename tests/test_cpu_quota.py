"""P is the number of CPUs this process may really use: affinity, cgroup quota, COMPOSABLE_NUM_THREADS."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cgroups import PERIOD, Groups
from fresh import check_fresh

INFO = """
    import json, composable_threads
    info = composable_threads.info()
    print(json.dumps({key: info[key] for key in ("slots", "slots_source", "affinity", "quota", "variable")}))
"""


def fresh_info(setup: str = "", *, variable: str | None = None, preexec_fn: Callable[[], None] | None = None) -> dict:
    env = {} if variable is None else {"COMPOSABLE_NUM_THREADS": variable}
    return json.loads(check_fresh(setup + INFO, env=env, preexec_fn=preexec_fn))


# --- affinity


def test_affinity_mask_limits_p():
    cpu = min(os.sched_getaffinity(0))
    info = fresh_info(f"    import os; os.sched_setaffinity(0, {{{cpu}}})")
    assert (info["slots"], info["slots_source"], info["affinity"]) == (1, "affinity", 1)


def test_affinity_is_read_from_the_mask_and_not_from_the_machine():
    info = fresh_info()
    assert info["affinity"] == len(os.sched_getaffinity(0))
    assert 1 <= info["slots"] <= info["affinity"]


# --- COMPOSABLE_NUM_THREADS


@pytest.mark.parametrize("variable", ["1", " 1 ", "\t1\n"])
def test_variable_lowers_p(variable):
    ambient = fresh_info()
    info = fresh_info(variable=variable)
    assert (info["slots"], info["variable"]) == (1, 1)
    assert info["slots_source"] == ("COMPOSABLE_NUM_THREADS" if ambient["slots"] > 1 else ambient["slots_source"])


def test_variable_never_raises_p():
    ambient = fresh_info()
    info = fresh_info(variable="4096")
    assert info["variable"] == 4096
    assert (info["slots"], info["slots_source"]) == (ambient["slots"], ambient["slots_source"])


@pytest.mark.parametrize("variable", [None, "", "  "])
def test_blank_variable_counts_as_not_set(variable):
    assert fresh_info(variable=variable)["variable"] is None


@pytest.mark.parametrize("variable", ["0", "-3", "two", "1.5", "99999999999999"])
def test_bad_variable_is_a_value_error_with_the_accepted_values(variable):
    said = check_fresh(
        """
        try:
            import composable_threads
            composable_threads.info()
        except ValueError as error:
            print(error)
        """,
        env={"COMPOSABLE_NUM_THREADS": variable},
    )
    assert said == f"COMPOSABLE_NUM_THREADS must be a whole number of at least 1, not '{variable}'\n"


# --- real cgroup quotas


@pytest.fixture(params=["v1", "v2"])
def groups(request) -> Iterator[Groups]:
    with ExitStack() as undo:
        yield Groups(request.param, undo)


def info_inside(group: Path, **options) -> dict:
    return fresh_info(preexec_fn=Groups.joins(group), **options)


def expect_quota(info: dict, cpus: float, whole: int, ambient: dict) -> None:
    """``ambient`` is the info of a group beside it without a quota: other limits may be lower."""
    assert info["slots"] == min(whole, ambient["slots"])
    assert info["slots_source"] == ("quota" if whole < ambient["slots"] else ambient["slots_source"])
    assert info["quota"] == pytest.approx(min(cpus, ambient["quota"] or cpus))
    assert info["affinity"] == ambient["affinity"]


@pytest.mark.parametrize(
    ("quota", "whole"), [(20_000, 1), (50_000, 1), (100_000, 1), (150_000, 2), (200_000, 2), (250_000, 3)]
)
def test_quota_rounded_up_limits_p(groups, quota, whole):
    ambient = info_inside(groups.make(None))
    expect_quota(info_inside(groups.make(quota)), quota / PERIOD, whole, ambient)


def test_group_without_a_quota_limits_nothing(groups):
    outside = fresh_info()
    inside = info_inside(groups.make(None))
    assert inside["affinity"] == outside["affinity"]
    assert inside["slots"] >= outside["slots"]


def test_quota_of_the_parent_counts(groups):
    ambient = info_inside(groups.make(None))
    child = groups.make(None, parent=groups.make(100_000))
    expect_quota(info_inside(child), 1, 1, ambient)


def test_quota_of_the_child_counts(groups):
    ambient = info_inside(groups.make(None))
    child = groups.make(100_000, parent=groups.make(200_000))
    expect_quota(info_inside(child), 1, 1, ambient)


def test_smaller_quota_of_the_parent_wins(groups):
    ambient = info_inside(groups.make(None))
    parent = groups.make(None)
    child = groups.make(200_000, parent=parent)
    try:
        groups.set_quota(parent, 100_000)
    except OSError as error:
        # v1 keeps a child's quota at or below its parent's; then equal is the most there is.
        assert (groups.version, error.errno) == ("v1", errno.EINVAL)
        groups.set_quota(child, 100_000)
        groups.set_quota(parent, 100_000)
    expect_quota(info_inside(child), 1, 1, ambient)


def test_variable_below_the_quota_sets_p(groups):
    ambient = info_inside(groups.make(None))
    info = info_inside(groups.make(200_000), variable="1")
    assert (info["slots"], info["variable"]) == (1, 1)
    assert info["slots_source"] == ("COMPOSABLE_NUM_THREADS" if ambient["slots"] > 1 else ambient["slots_source"])
