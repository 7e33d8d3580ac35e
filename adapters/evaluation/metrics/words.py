"""Texts as words, and texts made comparable: Chinese, Japanese and Korean script counts by character."""

from __future__ import annotations

import re
import unicodedata

# Han with its extensions, kana, Hangul syllables.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(f"[{CJK}]|[^\\W_{CJK}]+")
_CJK = re.compile(f"[{CJK}]")
_LETTER = re.compile(r"[^\W\d_]")
_EDGES = ".,;:!?。，；：！？、 \t\n\"'“”‘’"


def words_of(text: str) -> list[str]:
    """Lower-case words; every CJK character is one; punctuation is none."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def normalised(text: str) -> str:
    """NFKC, lower case, one blank for any white space, no punctuation or blanks at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split()).strip(_EDGES)


def cjk_share(text: str) -> float | None:
    """Share of CJK among the letters; None for a text without letters."""
    letters = len(_LETTER.findall(text))
    return len(_CJK.findall(text)) / letters if letters else None


def has_cjk(text: str) -> bool:
    """Whether any character is CJK."""
    return _CJK.search(text) is not None
