"""`python -m composable_threads compare` counts runs, judges them and says so; what it measures is never asserted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMPARE = (sys.executable, "-m", "composable_threads", "compare")
# Programs know the way they are run by this: sys.orig_argv is the real command line either way.
STOCK = "import sys\nSTOCK = 'composable_threads' not in sys.orig_argv\n"
COUNT = "open('runs', 'a').write('s' if STOCK else 'c')\n"


def compare(folder: Path, text: str, *options: str, words: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(STOCK + COUNT + text)
    return subprocess.run(
        [*COMPARE, *options, "program.py", *words],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def runs(folder: Path) -> str:
    return (folder / "runs").read_text()


def test_table_has_three_rows_and_four_columns(tmp_path: Path) -> None:
    done = compare(tmp_path, "print('kept back')")
    assert (done.stderr, done.returncode) == ("", 0)
    title, *rows = done.stdout.splitlines()
    assert title.split("  ")[-1].strip() == "peak threads"
    assert [name in title for name in ("wall s", "CPU s", "context switches")] == [True] * 3
    assert [row.split()[0] for row in rows] == ["stock", "composable", "ratio"]
    assert all(len(row.split()) == 6 and ".." in row.split()[2] for row in rows)
    assert len({len(line) for line in (title, *rows)}) == 1


def test_runs_alternate_and_start_with_stock(tmp_path: Path) -> None:
    assert compare(tmp_path, "", "--rounds", "2").returncode == 0
    assert runs(tmp_path) == "scsc"


def test_three_rounds_are_the_default(tmp_path: Path) -> None:
    assert compare(tmp_path, "").returncode == 0
    assert runs(tmp_path) == "scscsc"


def test_words_after_the_program_are_the_program_s(tmp_path: Path) -> None:
    words = ("-p", "x", "--rounds", "9", "--", "")
    text = f"assert sys.argv == {['program.py', *words]}, sys.argv\n"
    assert compare(tmp_path, text, "--rounds", "1", words=words).returncode == 0


def test_module_is_compared_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    text = "assert __package__ == 'package' and sys.argv[1:] == ['a']"
    (tmp_path / "package" / "__main__.py").write_text(STOCK + COUNT + text)
    words = [*COMPARE, "--rounds", "1", "-m", "package", "a"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode, runs(tmp_path)) == ("", 0, "sc")


def test_size_is_given_to_the_composable_run_only(tmp_path: Path) -> None:
    text = "words = sys.orig_argv\nassert ('-p' not in words) if STOCK else (words[-3:-1] == ['-p', '2']), words"
    done = compare(tmp_path, text, "--rounds", "1", "-p", "2")
    assert (done.stderr, done.returncode) == ("", 0)
    words = [*COMPARE[:-1], "-p", "2", "compare", "--rounds", "1", "program.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode, runs(tmp_path)) == ("", 0, "scsc")


def test_json_holds_every_run(tmp_path: Path) -> None:
    assert compare(tmp_path, "", "--rounds", "2", "--json", "out.json", words=("a",)).returncode == 0
    saved = json.loads((tmp_path / "out.json").read_text())
    assert (saved["program"], saved["rounds"], saved["slots"], saved["timeout"]) == (["program.py", "a"], 2, None, None)
    for kind in ("stock", "composable"):
        assert len(saved[kind]) == 2
        for run in saved[kind]:
            assert run["finished"] is True and run["peak_threads"] >= 1 and run["context_switches"] >= 0
            assert run["wall_seconds"] > 0 and run["cpu_seconds"] > 0


def test_threads_and_switches_of_descendants_count(tmp_path: Path) -> None:
    text = """
import subprocess, threading, time
child = '''
import threading, time
threads = [threading.Thread(target=time.sleep, args=(1,)) for _ in range(20)]
[t.start() for t in threads]
for _ in range(300): time.sleep(0.0001)
'''
thread = threading.Thread(target=subprocess.run, args=([sys.executable, "-c", child],))
thread.start()
thread.join()
"""
    assert compare(tmp_path, text, "--rounds", "1", "--json", "out.json").returncode == 0
    saved = json.loads((tmp_path / "out.json").read_text())
    for kind in ("stock", "composable"):
        assert saved[kind][0]["peak_threads"] >= 23
        assert saved[kind][0]["context_switches"] >= 300


@pytest.mark.parametrize(("ends", "code"), [("sys.exit(7)", 7), ("1 / 0", 1), ("__import__('os').kill(0, 15)", 143)])
def test_failing_run_ends_it_with_its_exit_code_and_its_last_lines(ends: str, code: int, tmp_path: Path) -> None:
    done = compare(tmp_path, f"print('why', file=sys.stderr)\n{ends}")
    assert (done.stdout, done.returncode, runs(tmp_path)) == ("", code, "s")
    assert f"compare: the stock run of round 1 ended with exit code {code}" in done.stderr and "\nwhy\n" in done.stderr


def test_failure_under_the_arena_only_says_so(tmp_path: Path) -> None:
    done = compare(tmp_path, "for n in range(100): print('line', n, file=sys.stderr)\nSTOCK or sys.exit(3)")
    assert (done.stdout, done.returncode, runs(tmp_path)) == ("", 3, "sc")
    assert "the composable run of round 1 ended with exit code 3" in done.stderr
    assert "line 99" in done.stderr and "line 50" not in done.stderr


def test_different_output_is_noted_below_the_table(tmp_path: Path) -> None:
    assert "note:" in compare(tmp_path, "print(STOCK)", "--rounds", "1").stdout.splitlines()[-1]
    assert "note:" not in compare(tmp_path, "print('same')", "--rounds", "1").stdout


def gone(pid: int) -> bool:
    """Whether the process has ended; one whose parent has not yet asked counts as ended."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


# A grandchild in a session of its own: the process group alone would not reach it.
HANG = """
import os, subprocess, time
child = [sys.executable, "-c", "import time; time.sleep(300)"]
children = [subprocess.Popen(child), subprocess.Popen(child, start_new_session=True)]
open('pids', 'a').write(' '.join(str(n) for n in (os.getpid(), *(c.pid for c in children))) + ' ')
time.sleep(300)
"""


def wait_for(path: Path) -> list[int]:
    deadline = time.monotonic() + 30
    while not (path.exists() and len(path.read_text().split()) == 3):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(word) for word in path.read_text().split()]


def test_stock_that_does_not_finish_is_stopped_and_not_run_again(tmp_path: Path) -> None:
    text = f"if not STOCK: sys.exit()\n{HANG}"
    done = compare(tmp_path, text, "--timeout", "3", "--rounds", "2", "--json", "out.json")
    assert (done.stderr, done.returncode, runs(tmp_path)) == ("", 0, "scc")
    stock, _, ratio = done.stdout.splitlines()[1:4]
    assert "> 3 s (not finished)" in stock and ratio.split()[1] == "<"
    saved = json.loads((tmp_path / "out.json").read_text())
    assert [run["finished"] for run in saved["stock"]] == [False] and len(saved["composable"]) == 2
    assert all(map(gone, wait_for(tmp_path / "pids")))


def test_composable_that_does_not_finish_is_an_error(tmp_path: Path) -> None:
    done = compare(tmp_path, "import time\nSTOCK or time.sleep(300)", "--timeout", "3", "--rounds", "1")
    assert done.returncode == 1 and "did not finish within 3 s" in done.stderr
    assert "> 3 s (not finished)" in done.stdout.splitlines()[2]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_compare_leaves_no_process_and_dies_of_the_signal(signum: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(STOCK + HANG)
    command = [*COMPARE, "program.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            pids = wait_for(tmp_path / "pids")
        finally:
            process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (b"", b"", -signum)
    assert all(map(gone, pids))


def test_program_that_asks_for_input_finds_none(tmp_path: Path) -> None:
    done = compare(tmp_path, "assert sys.stdin.read() == ''", "--rounds", "1")
    assert (done.stderr, done.returncode) == ("", 0)


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("")
    main, other = os.openpty()
    with open(main, "rb", buffering=0) as seen:
        done = subprocess.run(
            [*COMPARE, "--rounds", "1", "program.py"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=other, timeout=60, check=False,
        )  # fmt: skip
        os.close(other)
        assert b"round 1 of 1: composable" in seen.read(4096)
    assert done.returncode == 0 and b"\x1b" not in done.stdout
