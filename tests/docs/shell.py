"""The commands of a shell block as words, without running any of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tests.docs.page import Page

_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_PROMPT = "$ "
SHELL = frozenset({"sh", "bash"})
# A block without a language is a shell block where it begins with one of these.
_FIRST_WORDS = ("hotswap ", "python ", "accelerate ", "make ", "curl ", "docker ", "kubectl ")


@dataclass(frozen=True)
class Command:
    """One simple command: its words, the variables set for it, and where it stands."""

    words: tuple[str, ...]
    variables: tuple[str, ...]
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


def commands_of(page: Page) -> list[Command]:
    """Every command in the shell blocks of a page."""
    found: list[Command] = []
    for block in page.blocks:
        text = block.text
        if block.language not in SHELL and not text.startswith(_FIRST_WORDS):
            continue
        if text.startswith(_PROMPT) or f"\n{_PROMPT}" in text:
            text = _typed(text)
        found += parse(text, f"{page.name}:{block.line}")
    return found


def mentions_of(page: Page, *programs: str) -> list[Command]:
    """The commands between backticks in sentences that begin with one of `programs`; arguments may be left out."""
    found: list[Command] = []
    for span in page.spans:
        if span.split()[:1] and span.split()[0] in programs:
            found += parse(re.sub(r"[\[\]]", "", span), page.name)
    return found


def parse(text: str, where: str) -> list[Command]:
    """The simple commands of a script. Raises ValueError for a quote that is never closed."""
    found = []
    for piece in _pieces(text):
        words = _without_redirections(shlex.split(piece))
        count = next((n for n, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
        if words[count:]:
            found.append(Command(tuple(words[count:]), tuple(words[:count]), where))
    return found


def _typed(text: str) -> str:
    """Of a session, what was typed: lines after a prompt, and those that they go on in."""
    typed, goes_on = [], False
    for line in text.splitlines():
        if line.startswith(_PROMPT) or goes_on:
            typed.append(line.removeprefix(_PROMPT))
            goes_on = line.endswith("\\")
    return "\n".join(typed)


def _pieces(text: str) -> Iterator[str]:
    """Split at line ends, `;`, `|`, `&` outside quotes; comments go, lines that go on are joined."""
    quote, piece, place = "", "", 0
    text = text.replace("\\\n", " ")
    while place < len(text):
        sign = text[place]
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and (not piece or piece[-1].isspace()):
            end = text.find("\n", place)
            place = len(text) if end < 0 else end
            continue
        elif sign in "\n;|&":
            yield piece
            piece, place = "", place + 1
            continue
        piece += sign
        place += 1
    yield piece


def _without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif re.fullmatch(r"\d?[<>]{1,2}", word):
            skip = True
        elif not re.match(r"\d?[<>]", word):
            kept.append(word)
    return kept
