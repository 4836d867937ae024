"""The core's C++ tests, built and run without an interpreter."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOTS = (1, 2, 3, 4, 8)
TESTS = sorted(path.stem for path in (ROOT / "native" / "tests").glob("test_*.cpp"))
WITHOUT_ARENA = {"test_cpu_quota", "test_schedule"}
CASES = [(name, slots) for name in TESTS for slots in (SLOTS if name not in WITHOUT_ARENA else (0,))]


def tbb_folder() -> Path:
    files = importlib.metadata.files("tbb-devel") or []
    return next(file.locate().resolve().parent for file in files if file.name == "TBBConfig.cmake")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if shutil.which("c++") is None and "CXX" not in os.environ:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("native")
    options = ["-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-DCOMPOSABLE_PYTHON=OFF", "-DCOMPOSABLE_TESTS=ON", f"-DTBB_DIR={tbb_folder()}"]
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *options]
    for command in (configure, ["cmake", "--build", str(folder)]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


@pytest.mark.parametrize(("name", "slots"), CASES)
def test_core(built, name, slots):
    command = [str(built / name)] + ([str(slots)] if slots else [])
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    passed, failed = (int(word) for word in done.stdout.splitlines()[-1].replace(",", "").split() if word.isdigit())
    assert passed > 0 and failed == 0


def test_core_includes_no_python():
    core = [path for path in (ROOT / "native").glob("*.*") if not path.name.startswith(("bind_", "gil.", "module."))]
    assert core
    for path in core:
        assert "Python.h" not in path.read_text() and "pybind11" not in path.read_text(), path.name
