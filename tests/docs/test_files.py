"""Files and folders that a page names are there, or are written by the code."""

from __future__ import annotations

import re

import pytest

from tests.docs.page import PROJECT, Page, pages
from tests.docs.sources import folders_of, is_the_described_vllm, others_files, tree

PAGES = pages()
described_vllm = pytest.mark.skipif(
    not is_the_described_vllm(), reason="the pages describe the CPU build of vLLM"
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# Files that pages speak of and that are their reader's, or that others' programs read.
READERS_FILES = frozenset(
    {
        "notes.jsonl",
        "notes.csv",
        "hotswap.toml",
        "rules.yaml",
        "recipe.yaml",
        "pyproject.toml",
        "risk.json",
        "risk.md",
        "risk.partial.jsonl",
    }
)
_FILE = re.compile(
    r"[\w.@-]+(?:/[\w.@-]+)*\.(?:py|md|json|jsonl|ya?ml|toml|txt|lock|in|conf|svg|png|html|safetensors)"
)
_FOLDER = re.compile(r"[a-z_.-]+(?:/[a-z_.-]+)*/")


@described_vllm
@each_page
def test_every_file_is_there(page: Page) -> None:
    files, code = tree()
    shown = {word for block in page.blocks for word in re.split(r"[\s'\"=]+", block.text)}
    for span in page.spans:
        if not _FILE.fullmatch(span):
            continue
        name = span.removeprefix("./")
        ends = f"/{name}"
        is_there = (
            name in files
            or any(file.endswith(ends) for file in files)
            or any(file == name or file.endswith(ends) for file in others_files())
        )
        is_written = f'"{name}"' in code or f'"{name.rpartition("/")[2]}"' in code
        is_readers = name in READERS_FILES or name in shown or any(word.endswith(ends) for word in shown)
        assert is_there or is_written or is_readers, f"{page.name}: {span}"


@described_vllm
@each_page
def test_every_folder_is_there(page: Page) -> None:
    files, code = tree()
    folders = folders_of(files) | folders_of(others_files())
    for span in page.spans:
        if _FOLDER.fullmatch(span) and not re.match(r"\.|HOME/|HOTSWAP_HOME/", span):
            is_there = any(folder == span or folder.endswith(f"/{span}") for folder in folders)
            assert is_there or f'"{span.rstrip("/")}"' in code, f"{page.name}: {span}"


def test_every_page_that_the_code_sends_a_reader_to_is_there() -> None:
    files, code = tree()
    deployed = [path for path in (PROJECT / "deploy").rglob("*.*") if path.is_file()]
    deploy = "".join(path.read_text(encoding="utf-8") for path in deployed)
    named = set(re.findall(r"\bdocs/[a-z-]+\.md\b", code + deploy))
    assert len(named) > 8
    assert named <= files


def test_the_pages_name_files() -> None:
    assert sum(bool(_FILE.fullmatch(span)) for page in PAGES for span in page.spans) > 100
