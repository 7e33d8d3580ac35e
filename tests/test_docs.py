"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.settings_table import PAGE, settings_page

PROJECT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "benchmarks").rglob("*.md")]
)


def test_the_settings_page_is_what_the_settings_class_says():
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run `python -m scripts.settings_table`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_a_page_leads_to_a_heading(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert anchor in anchors(page.parent / target if target else page), f"{page.name}: #{anchor}"


def anchors(page: Path) -> set[str]:
    """What headings are called in links: small letters, hyphens for spaces, no other signs."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_of_the_docs_is_in_the_table_of_questions():
    table = (PROJECT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"}
    assert len(pages) >= 25
    assert {name for name in pages if f"({name})" not in table} == set()


def test_the_readme_names_every_subcommand():
    import hotswap

    named = (PROJECT / "README.md").read_text(encoding="utf-8")
    for command in hotswap.app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        assert f"hotswap {name}" in named


def test_every_row_of_the_fault_table_has_its_tests():
    """A test for each id, a file for each name, and nothing that is put off."""
    table = (PROJECT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| B5-(\d\d) \|", table, re.MULTILINE)
    assert rows == [f"{number:02}" for number in range(1, 27)]
    sources = [path.read_text(encoding="utf-8") for path in (PROJECT / "tests").rglob("test_*.py")]
    names = re.findall(r"def test_b5((?:_\d\d)+)_", "\n".join(sources))
    tested = {number for name in names for number in re.findall(r"\d\d", name)}
    assert tested == set(rows)
    assert "not yet" not in table
    places = ("tests/serve/faults", "tests/serve", "tests")
    tests = "\n".join(line for line in table.splitlines() if line.startswith("|"))
    for named in re.findall(r"`([a-z_/]*test_[a-z0-9_]+\.py)`", tests):
        assert any((PROJECT / place / named).is_file() for place in places), named
