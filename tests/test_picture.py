"""The README's picture: it is there, small and well formed, and its script draws another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def check(file: Path) -> None:
    assert file.stat().st_size < 60_000
    words = [text.text or "" for text in ElementTree.parse(file).iter(f"{SVG}text")]
    assert "As it is" in words and "main thread" in words
    assert len([text for text in words if text.startswith("finished after ")]) == 2


def test_readme_shows_it() -> None:
    assert "(docs/picture.svg)" in (DOCS.parent / "README.md").read_text()
    check(DOCS / "picture.svg")


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not count how long threads wait")
def test_script_draws_it_from_a_measurement(tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    command = [sys.executable, DOCS / "picture.py", "--tasks", "2", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    check(file)


def test_program_that_takes_too_long_is_told(tmp_path: Path) -> None:
    command = [sys.executable, DOCS / "picture.py", "--timeout", "0.01", tmp_path / "picture.svg"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "not finished after 0.01 s" in done.stderr
