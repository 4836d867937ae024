"""`compare --html` writes one page that explains itself, loads nothing and says nothing on the console; its numbers are right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import chromium
import pytest
from composable_threads._compare import Sample, View
from composable_threads.timeline import report
from composable_threads.timeline.kernel import ThreadWatch, Use, Watched
from composable_threads.timeline.model import Span, Thread, Timeline

PROGRAM = """
import threading
from concurrent.futures import ThreadPoolExecutor
def spin(n): return sum(i * i for i in range(20000))
with ThreadPoolExecutor(2) as pool: print(len(list(pool.map(spin, range(60)))))
"""


def watched(cpus: int, *uses: list[Use]) -> Watched:
    """Threads with their uses, look by look, a second apart."""
    found = Watched(cpus=cpus, seconds=float(len(uses[0])), times=[float(n) for n in range(len(uses[0]) + 1)])
    for number, of_thread in enumerate(uses):
        found.names[1, number] = f"<t{number}>"
        found.uses[1, number] = dict(enumerate(of_thread, 1))
    return found


def made(*, finished: bool = True, timeline: Timeline | None = None, rounds: int = 1, threads: int = 2) -> str:
    full = watched(2, *([Use(0.5, 0.5)] * 4 for _ in range(4)))
    calm = watched(2, *([Use(2 / threads, 1 - 2 / threads)] * 2 for _ in range(threads)))
    timeline = timeline or Timeline(2, 2.0, [Thread(1, "composable-0", True, [Span("task", "<f>", 0.5, 1.5, 1, 1)])])
    stock = Sample(4.0, 8.0 if finished else None, 1000 if finished else None, 9, finished)
    views = {"stock": View(4.0, full, None), "composable": View(2.0, calm, timeline)}
    return report.page(["<b>.py"], [stock] * rounds, [Sample(2.0, 3.0, 10, 5, True)] * rounds, views, timeout=4.0)


def test_the_page_says_what_was_measured_in_words() -> None:
    page = made()
    assert (
        "<b>.py" not in page
        and "&lt;b&gt;.py, run in two ways" in page
        and "&lt;t0&gt;" in page
        and "&lt;f&gt;" in page
    )
    assert "2 times as fast" in page and "on average 2.0 more threads than that wanted to run" in page
    assert "which they share, it was 0.0" in page
    assert "As it is: 4 s; on average 2.0 threads too many" in page
    assert page.count("<svg") == page.count("</svg>") == 5
    assert "not finished after 4 s" in made(finished=False)
    assert "on one arena it was 2.0. Which threads these are" in made(threads=4)
    assert "may be luck" in page and "may be luck" not in made(rounds=2)


def test_a_program_that_only_changes_turns_often_is_told_so() -> None:
    calm = watched(2, *([Use(1.0, 0.0)] * 2 for _ in range(2)))
    views = {kind: View(2.0, calm, None) for kind in ("stock", "composable")}
    samples = [[Sample(2.0, 3.0, switches, 5, True)] for switches in (9_000, 1_000)]
    page = report.page(["a.py"], *samples, views, timeout=4.0)
    assert "took turns 9,000 times (context switches), on one arena 1,000 times" in page
    page = report.page(["a.py"], *reversed(samples), views, timeout=4.0)
    assert "So there is little for an arena to mend here." in page


def test_the_page_can_ask_for_nothing() -> None:
    page = made()
    assert not re.search(r"<(script|link rel=\"stylesheet|img|iframe|object)", page)
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", page) == ["data:,"]
    assert re.findall(r"https?://[^\"' <]*", page.replace("http://www.w3.org/2000/svg", "")) == []
    assert "default-src 'none'" in page


def test_totals_and_what_is_beyond_the_cpus() -> None:
    found = watched(2, [Use(1.0, 0.0), Use(0.5, 0.5)], [Use(0.0, 0.0), Use(0.5, 1.0)])
    assert found.totals() == [Use(0.0, 0.0), Use(1.0, 0.0), Use(1.0, 1.5)]
    assert found.beyond() == pytest.approx(0.25)


def schedstat(folder: Path, process: int, tid: int, ran: int, waited: int) -> None:
    task = folder / str(process) / "task" / str(tid)
    task.mkdir(parents=True, exist_ok=True)
    (task / "schedstat").write_text(f"{ran} {waited} 1\n")
    (task / "comm").write_text("name\n")


def look(watch: ThreadWatch, at: float) -> None:
    watch._look_at([7], at)


def test_the_kernel_s_counters_become_shares_of_time(tmp_path: Path) -> None:
    watch = ThreadWatch(2, str(tmp_path))
    schedstat(tmp_path, 7, 70, 500_000_000, 0)
    look(watch, 1.0)
    schedstat(tmp_path, 7, 70, 750_000_000, 250_000_000)
    schedstat(tmp_path, 7, 71, 100_000_000, 0)
    look(watch, 2.0)
    found = watch.close()
    assert found.exact and found.times == [0.0, 1.0, 2.0] and found.names[7, 70] == "name"
    assert found.uses == {(7, 70): {1: Use(0.5, 0.0), 2: Use(0.25, 0.25)}, (7, 71): {2: Use(0.1, 0.0)}}


def test_a_kernel_without_them_tells_who_is_ready(tmp_path: Path) -> None:
    for tid, state in ((70, "R"), (71, "R"), (72, "R"), (73, "R"), (74, "S")):
        task = tmp_path / "7" / "task" / str(tid)
        task.mkdir(parents=True)
        (task / "stat").write_text(f"{tid} (a) b) {state} 1 2 3")
        (task / "comm").write_text("a) b\n")
    watch = ThreadWatch(2, str(tmp_path))
    look(watch, 0.5)
    found = watch.close()
    assert not found.exact and found.totals()[1] == Use(2.0, 2.0) and found.beyond() == 2.0


def test_a_long_run_is_kept_in_bounds_and_its_sums_stay(tmp_path: Path) -> None:
    watch = ThreadWatch(1, str(tmp_path))
    for number in range(1, 8):
        schedstat(tmp_path, 7, 70, number * 100_000_000, number * 300_000_000)
        look(watch, float(number))
    whole = watch.watched.beyond(), sum(use.ran for use in watch.watched.totals())
    watch._halve()
    found = watch.close()
    assert found.times == [0.0, 2.0, 4.0, 6.0, 7.0]
    assert found.uses[7, 70] == {n: pytest.approx(Use(0.1, 0.3)) for n in range(1, 5)}
    assert found.beyond() == pytest.approx(whole[0]) and whole[1] == pytest.approx(0.7)


def test_this_very_process_is_seen() -> None:
    watch = ThreadWatch(1)
    for _ in range(3):
        sum(range(2_000_000))
        watch._next = 0.0
        watch.look([os.getpid()])
    found = watch.close()
    assert any(use.ran > 0 for use in found.totals()) and (os.getpid(), os.getpid()) in found.names


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "program.py").write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "composable_threads",
        "compare",
        "--rounds",
        "1",
        "--html",
        "page.html",
        "program.py",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert len(done.stdout.splitlines()) == 4
    return folder / "page.html"


def test_the_command_writes_the_page_with_both_timelines(page: Path) -> None:
    text = page.read_text()
    assert text.count("<svg") == 5 and "slot 0" in text and "spin" in text and "left no trace" not in text
    assert len(text) < 3_000_000


def test_a_program_that_leaves_at_once_has_a_page_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import os; os._exit(0)")
    command = [sys.executable, "-m", "composable_threads", "compare", "--rounds", "1", "--html", "p.html", "program.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100, check=True)
    assert "left no trace" in (tmp_path / "p.html").read_text()


@pytest.mark.skipif(chromium.executable() is None, reason="no Chromium; Debian's package is 'chromium'")
def test_a_browser_shows_it_without_a_word_or_a_request(page: Path) -> None:
    script = """(() => {
      const shown = [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect());
      const wide = document.documentElement.scrollWidth <= window.innerWidth;
      return {count: shown.length, drawn: shown.every(r => r.width > 300 && r.height > 20), wide,
              titles: document.querySelectorAll('svg title').length};
    })()"""
    found = chromium.visit(page, script)
    assert found.console == []
    assert [url for url in found.requests if not url.startswith("data:")] == [page.resolve().as_uri()]
    assert {name: found.value[name] for name in ("count", "drawn", "wide")} == {"count": 5, "drawn": True, "wide": True}
    assert found.value["titles"] > 10 and found.picture.startswith(b"\x89PNG")


@pytest.mark.skipif(chromium.executable() is None, reason="no Chromium; Debian's package is 'chromium'")
def test_a_page_that_speaks_or_asks_would_be_noticed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='other.png'><script>console.log('x'); throw new Error('y')</script>")
    found = chromium.visit(bad)
    assert any(url.endswith("other.png") for url in found.requests)
    assert any('"x"' in text for text in found.console) and any("Error: y" in text for text in found.console)
