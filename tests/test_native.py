"""The core's own tests, without an interpreter: built by CMake as a developer does, run at several arena sizes."""

from __future__ import annotations

import faulthandler
import fcntl
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from sanitizers import SIZELESS, SIZES, SOURCES

ROOT = Path(__file__).resolve().parents[1]


def run(command: list[str | Path], timeout: float) -> str:
    """The command's output, stderr included, in a failure's message too."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace")
        pytest.fail(f"{command[0]} did not end within {timeout} s:\n{output[-4000:]}", pytrace=False)
    if done.returncode != 0:
        pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-8000:]}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["c++", "g++", "clang++"]
    if not any(shutil.which(compiler) for compiler in compilers):
        pytest.skip("no C++ compiler")
    try:
        importlib.metadata.version("tbb-devel")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no tbb-devel; it comes with the extra 'test'")
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    cmake, ninja = (shutil.which(tool, path=path) for tool in ("cmake", "ninja"))
    assert cmake and ninja, "cmake and ninja come with the extra 'test'"
    # One for all of pytest-xdist's workers, whose folders stand in one of the run's.
    top = tmp_path_factory.getbasetemp()
    folder = (top.parent if "PYTEST_XDIST_WORKER" in os.environ else top) / "native"
    folder.mkdir(exist_ok=True)
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_FLAGS_RELEASE": "-O1",  # half the time of -O3
        "CMAKE_MAKE_PROGRAM": ninja,
        "COMPOSABLE_PYTHON": "OFF",
        "COMPOSABLE_TESTS": "ON",
        "Python_EXECUTABLE": sys.executable,
    }
    # On a loaded machine this takes longer than a test may. The limits here and in check() take the watchdog's place.
    faulthandler.cancel_dump_traceback_later()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            defined = [f"-D{key}={value}" for key, value in options.items()]
            run([cmake, "-S", ROOT, "-B", folder, "-G", "Ninja", *defined], 120)
            run([cmake, "--build", folder, "--parallel", "2"], 600)
            (folder / "built").touch()
    return folder


def check(program: Path, *args: str) -> None:
    output = run([program, *args], 120)
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed", output.rstrip().rpartition("\n")[2]), output


@pytest.mark.parametrize("name", [name for name in SOURCES if name in SIZELESS])
def test_core(build: Path, name: str) -> None:
    check(build / name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in SOURCES if name not in SIZELESS])
def test_core_at_size(build: Path, name: str, size: int) -> None:
    check(build / name, str(size))


@pytest.mark.parametrize("case", ["alone", "queued", "uncounted"])
def test_the_program_of_a_benchmark_runs(build: Path, case: str) -> None:
    assert json.loads(run([build / "width_cost", case], 120))["libraries"] == 0


def test_core_includes_no_python() -> None:
    core = [path for path in (ROOT / "native").glob("*.*") if not path.name.startswith(("bind_", "gil.", "module."))]
    assert core
    for path in core:
        assert "Python.h" not in path.read_text() and "pybind11" not in path.read_text(), path.name
