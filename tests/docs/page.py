"""The pages of the documentation, taken apart into blocks of code, code in sentences, and the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced piece of code; `line` is that of its first line in the page."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        is_inside = self.path.is_relative_to(PROJECT)
        return (self.path.relative_to(PROJECT) if is_inside else self.path).as_posix()

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """Fenced code, without its indentation."""
        return [
            Block(
                found.group(2),
                re.sub(rf"^{found.group(1)}", "", found.group(3), flags=re.MULTILINE),
                self.text.count("\n", 0, found.start()) + 2,
            )
            for found in _FENCE.finditer(self.text)
        ]

    @cached_property
    def sentences(self) -> str:
        """What is not fenced."""
        return _FENCE.sub("", self.text)

    @cached_property
    def spans(self) -> list[str]:
        """Code between backticks in sentences and tables, on one line each."""
        return [" ".join(span.split()) for span in _SPAN.findall(self.sentences)]


def pages() -> list[Page]:
    """The README and every page of docs/."""
    return [Page(path) for path in [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]]
