"""What every measured program shares: run a function a few times and print one JSON line of medians."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable


def measure(
    run: Callable[[], object],
    rounds: int = 5,
    scale: int | Callable[[], float] = 1,
    end: Callable[[], object] | None = None,
) -> None:
    """Warm up, measure `rounds` calls of `run`, print the medians and end the process.

    `scale`: how many units of work one call does; wall and CPU are given per unit. Or a function that says after a call
    how many seconds it counts. The process ends at once: how long a peer needs to leave is another question. `end`:
    called before, for child processes that would stay.
    """
    run()
    samples = []
    for _ in range(rounds):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        run()
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        units = scale if isinstance(scale, int) else 1
        samples.append(
            {
                "wall_s": wall / units if isinstance(scale, int) else scale(),
                "cpu_s": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / units,
                "switches": after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
                "threads": len(os.listdir("/proc/self/task")),
            }
        )
    median = sorted(samples, key=lambda sample: sample["wall_s"])[len(samples) // 2]
    print(json.dumps(median), flush=True)
    if end is not None:
        end()
    sys.stdout.flush()
    os._exit(0)
