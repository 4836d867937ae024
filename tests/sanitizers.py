"""The core under ThreadSanitizer, and under AddressSanitizer with UBSan; the extension under AddressSanitizer.

``python -m tests.sanitizers [thread|address|extension ...]``, all three by default. It needs GCC or Clang with their
runtimes, and what the extra ``test`` installs. Every C++ test is built in a folder of its own and run at P = 1, 2, 3, 4
and 8; for ``extension`` the module is built beside a copy of the package and runs the stress of ``sanitize/stress.py``.
Any report is a failure: the programs exit with a code of the sanitizer's, and what they print is searched as well.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUPPRESSIONS = Path(__file__).resolve().parent / "sanitize"
SOURCES = sorted(path.stem for path in (ROOT / "native" / "tests").glob("test_*.cpp"))
# These start no arena.
SIZELESS = {
    "test_array",
    "test_blocks",
    "test_cpu_quota",
    "test_graph",
    "test_order",
    "test_order_parts",
    "test_schedule",
}
SIZES = (1, 2, 3, 4, 8)
LIMIT = 600.0  # seconds for one program: ThreadSanitizer takes 5 to 15 times as long
REPORT = re.compile(r"(?:Address|Thread|Leak|UndefinedBehavior)Sanitizer|runtime error:")
KINDS = ("thread", "address", "extension")

OPTIONS = {
    "TSAN_OPTIONS": f"suppressions={SUPPRESSIONS / 'tsan.supp'} second_deadlock_stack=1 exitcode=66",
    "ASAN_OPTIONS": "detect_stack_use_after_return=1 strict_string_checks=1 check_initialization_order=1 exitcode=66",
    "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS / 'lsan.supp'} print_suppressions=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def run(command: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code (-1: it did not end in time) and output, stderr included."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        return -1, (late.stdout or b"").decode(errors="replace") + f"\nnot done after {timeout:.0f} s"
    return done.returncode, done.stdout


def unrandomised(command: list[str | Path]) -> list[str | Path]:
    """ThreadSanitizer of GCC before 14 refuses the address layouts of newer kernels."""
    setarch = shutil.which("setarch")
    return [setarch, platform.machine(), "-R", *command] if setarch else command


def build(folder: Path, sanitize: str, **more: str) -> None:
    """Configure and build; raises SystemExit with the output of what failed."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    cmake, ninja = (shutil.which(tool, path=path) for tool in ("cmake", "ninja"))
    if cmake is None or ninja is None:
        raise SystemExit("cmake and ninja are missing; they come with the extra 'test'")
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_FLAGS_RELEASE": "-O1",  # without NDEBUG
        "CMAKE_MAKE_PROGRAM": ninja,
        "COMPOSABLE_SANITIZE": sanitize,
        "Python_EXECUTABLE": sys.executable,
        **more,
    }
    steps = [
        [cmake, "-S", ROOT, "-B", folder, "-G", "Ninja", *(f"-D{key}={value}" for key, value in options.items())],
        [cmake, "--build", folder, "--parallel", str(min(os.cpu_count() or 1, 4))],
    ]
    for command in steps:
        code, output = run(command, timeout=1200)
        if code != 0:
            raise SystemExit(f"{output[-8000:]}\nfailed: {' '.join(map(str, command))}")


def check(name: str, command: list[str | Path], env: Mapping[str, str], last_line: str) -> bool:
    """Run one program and print its row; its whole output too if it reported or failed."""
    began = time.monotonic()
    code, output = run(command, timeout=LIMIT, env=env)
    right = re.fullmatch(last_line, output.rstrip().rpartition("\n")[2])
    good = code == 0 and right is not None and REPORT.search(output) is None
    print(f"{name:32}{'passed' if good else f'FAILED ({code})':16}{time.monotonic() - began:7.1f} s", flush=True)
    if not good:
        print(output[-20000:], flush=True)
    return good


def run_core(kind: str, folder: Path, only: str) -> int:
    """Failures of the C++ tests under one sanitizer."""
    build(folder, kind, COMPOSABLE_PYTHON="OFF", COMPOSABLE_TESTS="ON")
    failed = 0
    for name in SOURCES:
        for size in () if only not in name else ("",) if name in SIZELESS else map(str, SIZES):
            command: list[str | Path] = [folder / name, *([size] if size else [])]
            if kind == "thread":
                command = unrandomised(command)
            failed += not check(f"{kind} {name} {size}", command, OPTIONS, r"[1-9]\d* passed, 0 failed")
    return failed


def run_extension(folder: Path) -> int:
    """Failures of the stress script; the interpreter itself is not instrumented, so the runtime is preloaded."""
    build(folder, "address", COMPOSABLE_PYTHON="ON", pybind11_DIR=pybind11_folder())
    package = folder / "site"
    for source, target in (("src", ""), *((name, name) for name in ("numba_layer", "joblib_backend", "dask_backend"))):
        inside = package / "composable_threads" / target if target else package
        shutil.copytree(ROOT / source, inside, dirs_exist_ok=True)
    for module in folder.glob("_native*.so"):
        shutil.copy(module, package / "composable_threads")
    compiler = os.environ.get("CXX", "c++")
    runtimes = [run([compiler, f"-print-file-name=lib{name}.so"], timeout=60)[1].strip() for name in ("asan", "stdc++")]
    env = {
        **OPTIONS,
        # CPython, NumPy and LLVM keep what they allocated until the process ends; leaks are looked for in the core's
        # tests.
        "ASAN_OPTIONS": f"{OPTIONS['ASAN_OPTIONS']} detect_leaks=0",
        "LD_PRELOAD": " ".join(runtimes),
        "PYTHONMALLOC": "malloc",  # else an overrun stays inside one of CPython's own arenas
        "PYTHONPATH": str(package),
        "COMPOSABLE_NUM_THREADS": "3",
        "NUMBA_THREADING_LAYER": "composable",
    }
    command: list[str | Path] = [sys.executable, "-X", "faulthandler", SUPPRESSIONS / "stress.py"]
    return int(not check("extension stress", command, env, "done"))


def pybind11_folder() -> str:
    code, output = run([sys.executable, "-m", "pybind11", "--cmakedir"], timeout=60)
    if code != 0:
        raise SystemExit("pybind11 is missing; install it with: pip install 'pybind11>=2.13'")
    return output.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sanitizers", description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="|".join(KINDS))
    parser.add_argument("--only", default="", help="C++ tests whose name contains this")
    parser.add_argument("--folder", type=Path, help="build here and keep it; default: a temporary folder")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="sanitizers-") as temporary:
        for kind in arguments.kinds or KINDS:
            folder = (arguments.folder or Path(temporary)).resolve() / kind
            failed += run_extension(folder) if kind == "extension" else run_core(kind, folder, arguments.only)
    print(f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
