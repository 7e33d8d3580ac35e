"""Text as rules see it: one spelling for what readers take as the same, with the way back to the original.

Each character is folded on its own (compatibility decomposition, full case folding; what nobody sees and the
accents of Latin, Greek and Cyrillic letters are left out), so that a text can be folded piece by piece:
fold(a + b) is fold(a) + fold(b). Look-alikes of other scripts and spellings like `r1sk` are not undone.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from functools import lru_cache

# Combining marks of European scripts, enclosing and strike-through marks, variation selectors.
_MARKS = ((0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE0F))
_MARKS_BEYOND = ((0xFE20, 0xFE2F), (0xE0100, 0xE01EF))
# Fillers that are letters by category and show nothing.
_FILLERS = frozenset("ᅟᅠㅤﾠ\u17b4\u17b5\u034f")


def _unseen(char: str) -> bool:
    code = ord(char)
    if any(first <= code <= last for first, last in _MARKS + _MARKS_BEYOND):
        return True
    return char in _FILLERS or unicodedata.category(char) == "Cf"


@lru_cache(1 << 14)  # of what is written with; a text of every character must not fill the memory
def fold_char(char: str) -> str:
    """What rules see in place of one character; "" for one that nobody sees."""
    if _unseen(char):
        return ""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(part for part in folded if not _unseen(part))


def fold(text: str) -> str:
    """The whole text folded."""
    if text.isascii():
        return text.lower()
    return "".join(map(fold_char, text))


class FoldedText:
    """A text that grows at its end, folded, and cut off at its beginning as parts of it are done with."""

    def __init__(self, text: str = "") -> None:
        self.raw = ""
        self.folded = ""
        self._origin: list[int] = []  # for each folded character the place in `raw` that it came from
        self.before = ""  # the folded character in front of `folded`, for word borders
        if text:
            self.add(text)

    def add(self, text: str) -> None:
        """Append."""
        place = len(self.raw)
        self.raw += text
        if text.isascii():
            self.folded += text.lower()
            self._origin.extend(range(place, len(self.raw)))
            return
        parts = []
        for offset, char in enumerate(text, place):
            folded = fold_char(char)
            parts.append(folded)
            self._origin.extend([offset] * len(folded))
        self.folded += "".join(parts)

    def raw_start(self, place: int) -> int:
        """Where in `raw` the folded character at `place` begins; the end of `raw` for the end."""
        return self._origin[place] if place < len(self._origin) else len(self.raw)

    def raw_end(self, place: int) -> int:
        """Where in `raw` whatever lies before the folded place `place` ends: unseen characters go with it.

        A character that folds to several belongs to the part before wholly.
        """
        if place == 0:
            return 0
        last = self._origin[place - 1]
        while place < len(self._origin) and self._origin[place] == last:
            place += 1
        return self.raw_start(place)

    def cut(self, raw_place: int) -> None:
        """Forget everything before `raw_place`, a value that `raw_start` or `raw_end` gave."""
        done = bisect_left(self._origin, raw_place)
        if done:
            self.before = self.folded[done - 1]
        self.raw = self.raw[raw_place:]
        self.folded = self.folded[done:]
        self._origin = [place - raw_place for place in self._origin[done:]]
