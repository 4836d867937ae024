"""Style and types in one command: ``python -m tests.lint``, after ``pip install '.[test,lint]'``.

ruff (rules and layout), clang-format and mypy, as ``pyproject.toml`` and ``.clang-format`` say. mypy judges the installed
package, so install what you changed first. Exits with 1 if one of them finds something or is missing.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-m"]
CLANG_FORMAT = str(Path(sysconfig.get_path("scripts")) / "clang-format")
CPP = sorted(str(path) for path in (ROOT / "native").rglob("*") if path.suffix in (".h", ".cpp"))

# Name -> the module it needs, what is run.
CHECKS = {
    "ruff check": ("ruff", [*PYTHON, "ruff", "check", "--no-cache", str(ROOT)]),
    "ruff format": ("ruff", [*PYTHON, "ruff", "format", "--check", "--no-cache", str(ROOT)]),
    "clang-format": ("clang_format", [CLANG_FORMAT, "--dry-run", "-Werror", *CPP]),
    "mypy": ("mypy", [*PYTHON, "mypy", "--config-file", str(ROOT / "pyproject.toml")]),
    # Beside the package, where mypy looks for no types.
    "mypy of the start-up hook": (
        "mypy",
        [*PYTHON, "mypy", "--config-file=", "--strict", str(ROOT / "src" / "_composable_threads_boot.py")],
    ),
}


def is_missing(name: str) -> bool:
    return importlib.util.find_spec(CHECKS[name][0]) is None


def complaints(name: str) -> str:
    """What the tool says, empty if it is content."""
    done = subprocess.run(CHECKS[name][1], cwd=ROOT, capture_output=True, text=True)
    return f"{done.stdout}{done.stderr}" if done.returncode != 0 else ""


def main() -> int:
    failed = 0
    for name in CHECKS:
        told = "not installed; it comes with the extra 'lint'\n" if is_missing(name) else complaints(name)
        print(f"{name}: {told or 'clean'}", flush=True)
        failed += bool(told)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
