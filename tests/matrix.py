"""Every Python and every host version that we state: ``python -m tests.matrix [--python 3.13] [--hosts oldest]``.

For each interpreter the wheel is built, installed into a fresh virtual environment with the newest or the oldest hosts
that ``pyproject.toml`` states, and the normal tests are run; with hosts older than these (``unsupported``), the tests
that are about that. Interpreters come from pyenv's folder (``pyenv root`` or ``PYENV_ROOT``) or from the path.
Arguments that the script does not know are pytest's, paths included. The exit code is 1 if any run failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
HOSTS = ("numba", "joblib", "dask", "distributed", "scikit-learn")
KINDS = ("newest", "oldest", "unsupported")
# Of an interpreter that the oldest stated release has no wheel for, the first that has one.
FIRST_WHEEL = {("numba", "3.13"): "0.61.0", ("scikit-learn", "3.13"): "1.5.2"}
# What those hosts allow by their metadata and were not written for: it came later.
OF_THEIR_TIME = ["pandas<3", "scipy<1.16"]
UNSUPPORTED = ["numba==0.59.1", "joblib==1.3.2", "dask==2024.12.1", "numpy<2"]
UNSUPPORTED_TESTS = ["tests/test_host_versions.py"]
LAST_UNSUPPORTED = (3, 12)  # the last Python that all of UNSUPPORTED have wheels for


@dataclass
class Outcome:
    """One row of the table at the end."""

    python: str
    hosts: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    note: str = ""

    @property
    def bad(self) -> bool:
        return self.failed > 0 or self.passed == 0 or bool(self.note)


def stated(host: str) -> str:
    """The lowest version of ``host`` that ``pyproject.toml`` states."""
    # tomllib is not there before Python 3.11.
    found = re.search(rf'"{host}(?:\[[\w,]+\])?>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    if found is None:
        raise LookupError(f"pyproject.toml states no version of {host}")
    return found[1]


def constraints(python: str, kind: str) -> list[str]:
    """Lines of a constraints file for pip."""
    if kind != "oldest":
        return []
    oldest = {host: FIRST_WHEEL.get((host, python), stated(host)) for host in HOSTS}
    return [f"{host}=={version}" for host, version in oldest.items()] + OF_THEIR_TIME


def interpreters(version: str) -> Iterator[Path]:
    """Where an interpreter of ``version`` ("3.12") may be, the likeliest first."""
    root = os.environ.get("PYENV_ROOT")
    if root is None and (pyenv := shutil.which("pyenv")):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
    if root:
        found = Path(root, "versions").glob(f"{version}.*/bin/python")
        numbers = {path: [int(part) for part in re.findall(r"\d+", path.parts[-3])] for path in found}
        yield from sorted(numbers, key=numbers.__getitem__, reverse=True)
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)


def find_interpreter(version: str) -> Path | None:
    """The first that runs: pyenv's programs on the path refuse versions that are not selected."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in interpreters(version):
        done = subprocess.run([path, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return path
    return None


def call(command: Sequence[str | Path], *, log: Path, timeout: float, env: dict[str, str] | None = None) -> int:
    """Run in the project's folder with all output appended to ``log``; returns the exit code."""
    with log.open("a") as output:
        output.write(f"$ {' '.join(map(str, command))}\n")
        output.flush()
        return subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            env=env,
        ).returncode


def must_call(command: Sequence[str | Path], *, log: Path) -> None:
    if call(command, log=log, timeout=900) != 0:
        raise RuntimeError(f"failed: {' '.join(map(str, command))}")


def install(python: str, kind: str, folder: Path, log: Path) -> Path:
    """Install the wheel, built once for each Python, with its hosts; returns the environment's interpreter."""
    base = find_interpreter(python)
    if base is None:
        raise RuntimeError(f"no interpreter of Python {python}")
    inside = folder / "venv" / "bin" / "python"
    pip = [inside, "-m", "pip", "--disable-pip-version-check"]
    must_call([base, "-m", "venv", folder / "venv"], log=log)
    wheels = folder.parent / f"{python}-wheel"
    if not any(wheels.glob("*.whl")):
        must_call([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], log=log)
    wheel = next(wheels.glob("*.whl"))
    if kind == "unsupported":
        # The wheel's extras would refuse these versions.
        must_call([*pip, "install", *UNSUPPORTED, "tbb>=2022.2", "pytest>=8", "pytest-xdist"], log=log)
        must_call([*pip, "install", "--no-deps", wheel], log=log)
    else:
        pins = folder / "constraints.txt"
        pins.write_text("".join(f"{line}\n" for line in constraints(python, kind)))
        must_call([*pip, "install", "--constraint", pins, f"composable-threads[test] @ {wheel.as_uri()}"], log=log)
    must_call([*pip, "list", "--format", "freeze"], log=log)
    return inside


def run_tests(python: str, kind: str, folder: Path, options: list[str], limit: float) -> Outcome:
    """One cell of the matrix, in ``folder``."""
    outcome = Outcome(python, kind)
    log, results = folder / "log.txt", folder / "results.xml"
    began = time.monotonic()
    try:
        inside = install(python, kind, folder, log)
        tests = UNSUPPORTED_TESTS if kind == "unsupported" else []
        command = [inside, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={results}", *tests, *options]
        path = os.pathsep.join([str(inside.parent), os.environ.get("PATH", "")])
        code = call(command, log=log, timeout=limit, env={**os.environ, "PATH": path})
        if results.exists():
            read_results(results, outcome)
        if code != 0 and not outcome.failed:
            outcome.note = f"pytest ended with {code}"
    except subprocess.TimeoutExpired as late:
        outcome.note = f"not done after {late.timeout:.0f} s"
    except RuntimeError as error:
        outcome.note = str(error)
    outcome.seconds = time.monotonic() - began
    if outcome.bad and log.exists():
        print(*log.read_text(errors="replace").splitlines()[-60:], sep="\n", flush=True)
    return outcome


def read_results(results: Path, outcome: Outcome) -> None:
    for suite in ElementTree.parse(results).getroot().iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        outcome.failed += failed
        outcome.skipped += skipped
        outcome.passed += int(suite.get("tests", 0)) - failed - skipped


def table(outcomes: Sequence[Outcome]) -> str:
    lines = [f"{'Python':8}{'hosts':12}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>9}"]
    for row in outcomes:
        numbers = f"{row.passed:8}{row.failed:8}{row.skipped:8}{row.seconds:9.0f}"
        lines.append(f"{row.python:8}{row.hosts:12}{numbers}  {row.note}".rstrip())
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("--python", action="append", choices=PYTHONS, help="only this version; may be repeated")
    parser.add_argument("--hosts", action="append", choices=KINDS, help="only these host versions; may be repeated")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for the tests of one environment")
    parser.add_argument("--folder", type=Path, help="keep environments and logs here; default: a temporary folder")
    arguments, options = parser.parse_known_args()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="matrix-") as temporary:
        top = (arguments.folder or Path(temporary)).resolve()
        for python in arguments.python or PYTHONS:
            shutil.rmtree(top / f"{python}-wheel", ignore_errors=True)
            for kind in arguments.hosts or KINDS:
                if kind == "unsupported" and tuple(map(int, python.split("."))) > LAST_UNSUPPORTED:
                    continue
                folder = top / f"{python}-{kind}"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                outcomes.append(run_tests(python, kind, folder, options, arguments.limit))
                print(table(outcomes[-1:]), flush=True)
                if arguments.folder is None:
                    shutil.rmtree(folder)
        print(f"\n{table(outcomes)}")
    return int(any(outcome.bad for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
