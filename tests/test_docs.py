"""What the documentation shows is what happens: examples in docstrings and in Markdown run, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fresh import check_fresh

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")) + [ROOT / "native" / "README.md"]
# Module -> what has examples in it, at least.
EXAMPLES = {
    "composable_threads": ["deterministic"],
    "composable_threads._blocking": ["blocking", "task"],
    "composable_threads.executor": ["Executor"],
    "composable_threads.pool": ["ThreadPool"],
    "composable_threads.activation": ["activate"],
    "composable_threads.dask_backend.order": ["order"],
    "composable_threads.dask_backend.scheduler": ["get"],
    "composable_threads.joblib_backend.backend": ["ComposableBackend"],
}


def test_examples_in_docstrings():
    # In one process, since what they need takes long to import; each module's examples must do without the others'.
    code = f"""
import doctest, importlib
for name, public in {EXAMPLES!r}.items():
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {{test.name.rpartition(".")[2]: test for test in finder.find(module, name) if test.examples}}
    assert set(public) <= set(found), (name, sorted(found))
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    for test in found.values():
        test.globs = {{}}
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
"""
    check_fresh(code)


@pytest.mark.parametrize("page", [page for page in PAGES if ">>>" in page.read_text()], ids=lambda page: page.name)
def test_examples_in_pages(page):
    code = f"import doctest; print(doctest.testfile({str(page)!r}, module_relative=False).failed)"
    assert check_fresh(code, args=()).splitlines()[-1] == "0"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        other = page if not name else (page.parent / name)
        assert other.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], target
