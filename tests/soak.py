"""Everything mixed in one process for a long time: ``python -m tests.soak [--minutes M] [--seed S] [--size P]``.

Random programs (tests/programs), processes of loky in between. When a round of them has ended and the arena is idle,
what the process holds is sampled. Exits with 1 and a table if any of it grew after the warm-up. Left out are kernels
that raise: whatever the threading layer, Numba never frees the arrays of a region that did.
"""

from __future__ import annotations

import argparse
import array
import ctypes
import faulthandler
import gc
import os
import random
import statistics
import sys
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # where pytest finds what the tests share
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])  # for loky
os.environ.setdefault("NUMBA_THREADING_LAYER", "composable")
os.environ.setdefault("NUMBA_NUM_THREADS", "8")

PROGRAMS = 400  # different ones, so that nothing grows because it is new
ROUND = 50  # programs between two samples
LOKY = 10  # rounds between calls of loky: of each one Joblib keeps the name of a folder, and more, to the end
WARM_UP = 1 / 3  # of the samples
# So much more is noise, as a share: RSS has fragments of the heap, the others caches that fill late.
NOISE = {"rss": 0.02, "heap": 0.0025, "blocks": 0.0025}
PROGRAM_SECONDS = 120


@dataclass(frozen=True)
class Sample:
    """What the process holds. All numbers, for a `Log`."""

    minutes: float
    programs: int
    rss: float  # megabytes
    heap: float  # megabytes in use by the C library's malloc; 0 where it does not tell
    blocks: int  # small objects of Python's
    threads: int
    files: int  # descriptors
    semaphores: int  # of this process in /dev/shm, by name, and mapped
    children: int  # processes


class Log:
    """Samples in one block of memory: as objects they would be what grows."""

    def __init__(self) -> None:
        self._numbers = array.array("d")

    def append(self, one: Sample) -> None:
        self._numbers.extend(astuple(one))

    def __len__(self) -> int:
        return len(self._numbers) // len(fields(Sample))

    def samples(self) -> list[Sample]:
        width = len(fields(Sample))
        rows = (self._numbers[at : at + width] for at in range(0, len(self._numbers), width))
        return [Sample(*(int(number) if number.is_integer() else number for number in row)) for row in rows]


def sample(begun: float, programs: int) -> Sample:
    _settle()
    with open("/proc/self/statm") as file:
        rss = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
    return Sample(
        round((time.monotonic() - begun) / 60, 2),
        programs,
        round(rss, 1),
        round(_heap() / 1e6, 3),
        sys.getallocatedblocks(),
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
        _semaphores(),
        _children(),
    )


def _settle() -> None:
    """Until the spares have gone, and the heap has given back what is free."""
    gc.collect()
    time.sleep(0.5)
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # another C library
        pass


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def _heap() -> int:
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # another C library, or glibc before 2.33
        return 0
    mallinfo.restype = _Mallinfo
    told = mallinfo()
    return int(told.uordblks + told.hblkhd)


def _semaphores() -> int:
    """Named after this process, as loky does, or mapped. Other processes have some in the same place.

    Joblib's own loky leaves an empty folder for each call there until the process ends; that is left out.
    """
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    own = [name for name in names if f"-{os.getpid()}-" in name]
    with open("/proc/self/maps") as maps:
        return len(own) + sum("/dev/shm/" in line for line in maps)


def _children() -> int:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())


def grown(samples: list[Sample]) -> list[str]:
    """What is higher at the end than it ever was, or for memory than it mostly was, after the warm-up."""
    rest = samples[int(len(samples) * WARM_UP) :]
    half = len(rest) // 2
    early, late = rest[:half], rest[half:]
    if not early:
        return []
    names = [
        name
        for name in ("threads", "files", "semaphores", "children")
        if min(getattr(one, name) for one in late[-3:]) > max(getattr(one, name) for one in early)
    ]
    for name, share in NOISE.items():
        before, after = (statistics.median(getattr(one, name) for one in part) for part in (early, late))
        if after > before * (1 + share):
            names.append(name)
    return names


def table(samples: list[Sample]) -> str:
    rows = [tuple(field.name for field in fields(Sample)), *(astuple(one) for one in samples)]
    return "\n".join("".join(f"{cell!s:>12}" for cell in row) for row in rows)


def soak(minutes: float, seed: int, slots: int) -> list[Sample]:
    from composable_threads import _native
    from joblib import Parallel, delayed
    from programs import kernels, worker
    from programs.grammar import walk
    from programs.interpreter import Interpreter
    from programs.runner import generate

    worker.quiet()
    _native.configure(slots)
    kernels.compile_all()
    interpreter, order = Interpreter(slots), random.Random(seed)
    made = [program for program in generate(PROGRAMS, seed) if all(kind != "bad" for kind, _, _ in walk(program))]
    begun, ran = time.monotonic(), 0
    log = Log()
    while time.monotonic() - begun < 60 * minutes:
        for program in order.choices(made, k=ROUND):
            faulthandler.dump_traceback_later(PROGRAM_SECONDS, exit=True)
            try:
                worker.run_checked(interpreter, slots, program)
            except BaseException:
                print(f"failed after {ran} programs: {(slots, program)!r},", file=sys.stderr)
                raise
            ran += 1
        faulthandler.cancel_dump_traceback_later()
        if len(log) % LOKY == 0:
            squares = Parallel(n_jobs=2, backend="loky")(delayed(pow)(i, 2) for i in range(8))
            assert squares == [i * i for i in range(8)]
        log.append(sample(begun, ran))
    return log.samples()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Mix everything for a long time.")
    parser.add_argument("--minutes", type=float, default=20, metavar="M")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="default: a new one")
    parser.add_argument("--size", type=int, default=2, metavar="P", help="of the arena")
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}, P = {options.size}, {options.minutes} minutes", flush=True)
    samples = soak(options.minutes, seed, options.size)
    names = grown(samples)
    step = 1 if names else max(1, len(samples) // 10)
    print(table(samples[::step]))
    print(f"grew: {', '.join(names)}" if names else f"flat over {samples[-1].programs} programs")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
