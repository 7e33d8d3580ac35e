"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

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


def test_every_page_of_the_docs_is_found():
    assert len(PAGES) >= 4


def test_the_readme_names_every_subcommand():
    import hotswap

    named = (PROJECT / "README.md").read_text(encoding="utf-8")
    for command in hotswap.app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        assert f"hotswap {name}" in named


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    used = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(_code_blocks(PROJECT / "README.md"))))
    assert used
    assert used <= targets


def test_every_request_of_the_readme_fits_the_schema():
    """The bodies of the curl commands are what the gateway accepts."""
    import json

    from serve.schemas.admin import LoadBody
    from serve.schemas.generate import GenerateBody

    kinds: dict[str, type[BaseModel]] = {"/generate": GenerateBody, "/admin/adapters": LoadBody}
    found = 0
    for block in _code_blocks(PROJECT / "README.md"):
        for command in re.findall(r"curl[^\n]*(?:\\\n[^\n]*)*", block):
            body = re.search(r"-d '([^']*)'", command)
            path = re.search(r"localhost:8000(/[a-z/]*)", command)
            if body and path and path.group(1) in kinds:
                kinds[path.group(1)].model_validate(json.loads(body.group(1)))
                found += 1
    assert found >= 3


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


def _code_blocks(page: Path) -> list[str]:
    return re.findall(r"```[a-z]*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
