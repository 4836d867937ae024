"""What the kernel says of a process's threads: who ran, who was ready and got no CPU; seen from another process.

`/proc/<pid>/task/<tid>/schedstat` counts the ns that a thread ran and the ns that it was ready and waited. A kernel
without it only tells who is running or ready at a moment (`stat`, R): then the CPUs are shared out evenly among those.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

LEAST = 0.005  # seconds between two looks
SHARE = 1 / 30  # of a CPU, for looking
MOST_THREADS = 600  # more are not looked at: a file each is kept open
MOST_LOOKS = 6000  # then neighbours are put together


class Use(NamedTuple):
    """Of one thread, in the time since the look before: shares of that time."""

    ran: float
    waited: float


@dataclass
class Watched:
    """What was seen of one run. `uses[thread][number]`: from ``times[number - 1]`` to ``times[number]``."""

    seconds: float = 0.0
    cpus: int = 1
    exact: bool = True  # from schedstat
    times: list[float] = field(default_factory=lambda: [0.0])
    names: dict[tuple[int, int], str] = field(default_factory=dict)  # by process and thread id
    uses: dict[tuple[int, int], dict[int, Use]] = field(default_factory=dict)
    missed: int = 0  # threads that were too many

    def totals(self) -> list[Use]:
        """Threads that ran, and that waited, on average, for each look; the first is at time 0."""
        ran, waited = [0.0] * len(self.times), [0.0] * len(self.times)
        for of_thread in self.uses.values():
            for number, use in of_thread.items():
                ran[number] += use.ran
                waited[number] += use.waited
        return [Use(*pair) for pair in zip(ran, waited, strict=True)]

    def beyond(self) -> float:
        """Threads beyond the CPUs that were ready, on average: oversubscription."""
        pairs = zip(self.times, self.times[1:], self.totals()[1:], strict=False)
        whole = self.times[-1] - self.times[0]
        excess = sum((now - before) * max(0.0, use.ran + use.waited - self.cpus) for before, now, use in pairs)
        return excess / whole if whole > 0 else 0.0


class ThreadWatch:
    """Looks at the threads of some processes whenever it is asked to, as rarely as it must to cost little."""

    def __init__(self, cpus: int, proc: str = "/proc") -> None:
        self.watched = Watched(cpus=cpus)
        self._proc = proc
        self._began = time.perf_counter()
        self._next = self._began
        self._pause = LEAST
        self._files: dict[tuple[int, int], int] = {}
        self._known: dict[tuple[int, int], tuple[int, int]] = {}

    def look(self, processes: Iterable[int]) -> None:
        """Look, if it is time."""
        now = time.perf_counter()
        if now < self._next:
            return
        self._look_at(processes, now - self._began)
        self._pause = max(self._pause, (time.perf_counter() - now) / SHARE)
        if len(self.watched.times) >= MOST_LOOKS:
            self._halve()
            self._pause *= 2
        self._next = time.perf_counter() + self._pause

    def close(self) -> Watched:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
        self.watched.seconds = time.perf_counter() - self._began
        return self.watched

    def _look_at(self, processes: Iterable[int], at: float) -> None:
        watched, passed = self.watched, at - self.watched.times[-1]
        if passed <= 0:
            return
        accounts: dict[tuple[int, int], tuple[int, int]] = {}
        ready: set[tuple[int, int]] = set()
        for process in processes:
            with contextlib.suppress(OSError):
                for name in os.listdir(f"{self._proc}/{process}/task"):
                    thread = process, int(name)
                    text = self._read(thread)
                    if text is None:
                        continue
                    if watched.exact:
                        ran, waited = text.split()[:2]
                        accounts[thread] = int(ran), int(waited)
                    elif text.rpartition(b")")[2].split()[0] == b"R":
                        ready.add(thread)
        watched.times.append(at)
        number = len(watched.times) - 1
        for thread, account in accounts.items():
            before = self._known.get(thread, (0, 0))
            use = Use(*((now - old) * 1e-9 / passed for now, old in zip(account, before, strict=True)))
            if use.ran > 0 or use.waited > 0:
                watched.uses.setdefault(thread, {})[number] = use
        part = min(1.0, watched.cpus / len(ready)) if ready else 0.0
        for thread in ready:
            watched.uses.setdefault(thread, {})[number] = Use(part, 1 - part)
        self._known = accounts

    def _read(self, thread: tuple[int, int]) -> bytes | None:
        file = self._files.get(thread)
        if file is None:
            if len(self._files) >= MOST_THREADS:
                self.watched.missed += 1
                return None
            file = self._open(thread)
            if file is None:
                return None
        try:
            return os.pread(file, 512, 0) or None
        except OSError:  # it has ended
            os.close(self._files.pop(thread))
            return None

    def _open(self, thread: tuple[int, int]) -> int | None:
        folder = f"{self._proc}/{thread[0]}/task/{thread[1]}"
        if not self._files and not os.path.exists(f"{folder}/schedstat"):
            self.watched.exact = not os.path.exists(f"{folder}/stat")
        try:
            file = os.open(f"{folder}/{'schedstat' if self.watched.exact else 'stat'}", os.O_RDONLY)
            with open(f"{folder}/comm", encoding="utf-8", errors="replace") as named:
                self.watched.names[thread] = named.read().strip()
        except OSError:
            return None
        self._files[thread] = file
        return file

    def _halve(self) -> None:
        watched = self.watched
        times = watched.times
        for thread, uses in watched.uses.items():
            halved: dict[int, Use] = {}
            for number, use in uses.items():
                at = (number + 1) // 2
                last = min(2 * at, len(times) - 1)
                part = (times[number] - times[number - 1]) / (times[last] - times[2 * at - 2])
                old = halved.get(at, Use(0.0, 0.0))
                halved[at] = Use(old.ran + use.ran * part, old.waited + use.waited * part)
            watched.uses[thread] = halved
        watched.times = [times[0], *(times[min(number + 1, len(times) - 1)] for number in range(1, len(times), 2))]
