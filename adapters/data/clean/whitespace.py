"""Whitespace: spaces that carry nothing, in scripts with and without spaces between words."""

from __future__ import annotations

import re

from adapters.data.clean.code_spans import hide_code, show_code
from adapters.data.clean.script import CJK, CJK_PUNCTUATION

# Every kind of space but tab, newline and the ideographic space, which Chinese sets on purpose.
_ODD_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
_SPACE_RUN = re.compile(r"(?<=[^\s])(?: {2,}|\u3000{2,})(?=[^\s])")
_LINE_END = re.compile(r"[ \t\u3000]+(?=\n)")
_EMPTY_LINES = re.compile(r"\n{3,}")
_INDENTED_LATER_LINE = re.compile(r"\n[ \t\u3000]+\S")

_BOTH = CJK + CJK_PUNCTUATION
_SPACE_AT_PUNCTUATION = re.compile(
    rf"(?<=[{CJK_PUNCTUATION}]) +(?=[{_BOTH}])|(?<=[{CJK}]) +(?=[{CJK_PUNCTUATION}])"
)
# `你 好 世 界`: at least four characters, each alone.
_SPACED_CHARACTERS = re.compile(
    rf"(?<![^\s{CJK_PUNCTUATION}])[{CJK}](?: [{CJK}]){{3,}}(?![^\s{CJK_PUNCTUATION}])"
)
_SEGMENTED_RUN = re.compile(rf"(?<![{CJK}])[{CJK}]++(?: [{CJK}]++){{4,}}+")


def clean_whitespace(text: str, *, keep_start: bool = False, keep_end: bool = False) -> str:
    """Text without spaces that carry nothing; indentation, code, tabs inside a line stay.

    - line endings are `\\n`, at most one empty line in a row, none at the start and the end;
    - runs of spaces inside a line become one; spaces at a line's end go; no-break and thin spaces become plain;
    - between East Asian characters spaces go where they are artefacts: beside full-width punctuation, between
      characters that each stand alone (`你 好 世 界`), and in text cut into words (`我们 今天 去 学校 吃饭`).
      A space that separates names or titles (`张三 李四`), or Chinese from Latin, stays.

    `keep_start` and `keep_end` leave the outer whitespace as it is, where it is part of a raw prompt.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    hidden, spans, placeholder = hide_code(text)
    body = hidden.strip(" \t\n\u3000\u00a0")
    if not body:
        return hidden if keep_start or keep_end else ""
    start = hidden[: hidden.index(body[0])]
    start_end = len(start)
    end = hidden[start_end + len(body) :]
    body = _inner(body)
    if not keep_start:
        # The first line's indentation belongs to the text only where other lines are indented as well.
        start = start[start.rfind("\n") + 1 :] if _INDENTED_LATER_LINE.search(body) else ""
    return show_code(start + body + (end if keep_end else ""), spans, placeholder)


def _inner(text: str) -> str:
    text = _ODD_SPACE.sub(" ", text)
    text = _LINE_END.sub("", text)
    text = _EMPTY_LINES.sub("\n\n", text)
    text = _SPACE_RUN.sub(lambda run: run.group()[0], text)
    if " " not in text or text.isascii():
        return text
    text = _SPACE_AT_PUNCTUATION.sub("", text)
    text = _SPACED_CHARACTERS.sub(lambda run: run.group().replace(" ", ""), text)
    return _SEGMENTED_RUN.sub(_join_words, text)


def _join_words(run: re.Match[str]) -> str:
    """Words of a segmented sentence joined; a list of names or titles left alone.

    A sentence cut into words has words of one character (particles, pronouns, verbs) and short ones around;
    names and titles in a list have two characters and more each.
    """
    words = run.group().split(" ")
    singles = sum(len(word) == 1 for word in words)
    is_sentence = singles >= 1 and sum(map(len, words)) <= 2.5 * len(words)
    return "".join(words) if is_sentence else run.group()
