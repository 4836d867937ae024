"""Control groups with CPU quotas, for tests; made where this process may."""

from __future__ import annotations

import errno
import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

PERIOD = 100_000  # us, the kernel's default


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
    """Makes groups with CPU quotas; closing ``undo`` removes them. Skips the test where that is not allowed."""

    def __init__(self, version: str, undo: ExitStack) -> None:
        self.version = version
        self.mount = cgroup_mount(version)
        self.undo = undo
        try:
            self.make(PERIOD)
        except OSError as error:
            pytest.skip(f"may not set a CPU quota under {self.mount}: {error.strerror}")

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

    @staticmethod
    def joins(group: Path) -> Callable[[], None]:
        """For ``preexec_fn``: the new process enters the group."""

        def enter() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        return enter

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
