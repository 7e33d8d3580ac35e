"""Code inside text: fenced blocks and inline spans, which no cleaning rule may touch."""

from __future__ import annotations

import re

# A fence opens anywhere (chat answers put it in the middle of a line) and runs to its twin or to the end. An
# inline span stays in its line; its length is bounded so that a long line of stray backticks costs no n².
CODE_PATTERN = (
    r"(?P<fence>`{3,}|(?<![^\n])[ \t]*+~{3,})[\s\S]*?(?:(?P=fence)(?!`)|\Z)"
    r"|(?<!`)(?P<tick>`{1,2})(?!`)[^\n]{1,300}?(?<!`)(?P=tick)(?!`)"
)
_CODE = re.compile(CODE_PATTERN)
# Unicode noncharacters, which no text may hold: one of them stands for a span while it is put aside.
_PLACEHOLDERS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))


def split_code(text: str) -> list[tuple[bool, str]]:
    """The text in pieces, in order and without empty ones: (is it code, piece)."""
    if "`" not in text and "~~~" not in text:
        return [(False, text)] if text else []
    pieces = []
    end = 0
    for match in _CODE.finditer(text):
        pieces.append((False, text[end : match.start()]))
        pieces.append((True, match.group()))
        end = match.end()
    pieces.append((False, text[end:]))
    return [piece for piece in pieces if piece[1]]


def hide_code(text: str) -> tuple[str, list[str], str]:
    """The text with every code span replaced by one character, the spans, and that character.

    `show_code` reverses it after changes that neither drop nor move the character.
    """
    pieces = split_code(text)
    placeholder = next((mark for mark in _PLACEHOLDERS if mark not in text), None)
    if placeholder is None:  # all 32 noncharacters at once: not a text; nothing is known to be prose
        placeholder = "\ufdd0"
        return placeholder, [text], placeholder
    hidden = "".join(placeholder if is_code else piece for is_code, piece in pieces)
    return hidden, [piece for is_code, piece in pieces if is_code], placeholder


def show_code(text: str, spans: list[str], placeholder: str) -> str:
    """The text with the spans of `hide_code` back in their places."""
    if not spans:
        return text
    prose = text.split(placeholder)
    return prose[0] + "".join(span + after for span, after in zip(spans, prose[1:], strict=True))
