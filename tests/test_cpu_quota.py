"""P is the number of CPUs this process may really use: affinity, cgroup quota, COMPOSABLE_NUM_THREADS."""

from __future__ import annotations

import errno
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fresh import check_fresh

PERIOD = 100_000  # us, the kernel's default

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


def cgroup_mount(version: str) -> Path:
    """Where this process sees the hierarchy that has the cpu controller."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        escaped = before.split(" ")[4]
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), escaped))
        if version == "v1" and kind == "cgroup" and "cpu" in options.split(","):
            return point
        if version == "v2" and kind == "cgroup2" and "cpu" in (point / "cgroup.controllers").read_text().split():
            return point
    pytest.skip(f"no cgroup {version} hierarchy with the cpu controller is mounted")


class Groups:
    """Makes groups with CPU quotas; closing ``undo`` removes them."""

    def __init__(self, version: str, undo: ExitStack) -> None:
        self.version = version
        self.mount = cgroup_mount(version)
        self.undo = undo

    def make(self, quota: int | None, parent: Path | None = None) -> Path:
        parent = parent or self.mount
        if self.version == "v2":
            self.delegate_cpu(parent)
        group = parent / f"composable-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        group.mkdir()
        self.undo.callback(self.remove, group)
        if quota is not None:
            self.set_quota(group, quota)
        return group

    def set_quota(self, group: Path, quota: int) -> None:
        if self.version == "v1":
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD}")

    def delegate_cpu(self, parent: Path) -> None:
        control = parent / "cgroup.subtree_control"
        if "cpu" not in control.read_text().split():
            control.write_text("+cpu")
            self.undo.callback(control.write_text, "-cpu")

    def info_inside(self, group: Path, **options) -> dict:
        return fresh_info(preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())), **options)

    def remove(self, group: Path) -> None:
        # A process that was killed leaves its group a moment later; one that lives on is moved out, not killed.
        deadline = time.monotonic() + 5
        while True:
            try:
                return group.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(OSError):  # ended meanwhile
                    (self.mount / "cgroup.procs").write_text(pid)
            time.sleep(0.02)


@pytest.fixture(params=["v1", "v2"])
def groups(request) -> Iterator[Groups]:
    with ExitStack() as undo:
        made = Groups(request.param, undo)
        try:
            made.make(PERIOD)
        except OSError as error:
            pytest.skip(f"may not set a CPU quota under {made.mount}: {error.strerror}")
        yield made


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
    ambient = groups.info_inside(groups.make(None))
    expect_quota(groups.info_inside(groups.make(quota)), quota / PERIOD, whole, ambient)


def test_group_without_a_quota_limits_nothing(groups):
    outside = fresh_info()
    inside = groups.info_inside(groups.make(None))
    assert inside["affinity"] == outside["affinity"]
    assert inside["slots"] >= outside["slots"]


def test_quota_of_the_parent_counts(groups):
    ambient = groups.info_inside(groups.make(None))
    child = groups.make(None, parent=groups.make(100_000))
    expect_quota(groups.info_inside(child), 1, 1, ambient)


def test_quota_of_the_child_counts(groups):
    ambient = groups.info_inside(groups.make(None))
    child = groups.make(100_000, parent=groups.make(200_000))
    expect_quota(groups.info_inside(child), 1, 1, ambient)


def test_smaller_quota_of_the_parent_wins(groups):
    ambient = groups.info_inside(groups.make(None))
    parent = groups.make(None)
    child = groups.make(200_000, parent=parent)
    try:
        groups.set_quota(parent, 100_000)
    except OSError as error:
        # v1 keeps a child's quota at or below its parent's; then equal is the most there is.
        assert (groups.version, error.errno) == ("v1", errno.EINVAL)
        groups.set_quota(child, 100_000)
        groups.set_quota(parent, 100_000)
    expect_quota(groups.info_inside(child), 1, 1, ambient)


def test_variable_below_the_quota_sets_p(groups):
    ambient = groups.info_inside(groups.make(None))
    info = groups.info_inside(groups.make(200_000), variable="1")
    assert (info["slots"], info["variable"]) == (1, 1)
    assert info["slots_source"] == ("COMPOSABLE_NUM_THREADS" if ambient["slots"] > 1 else ambient["slots_source"])
