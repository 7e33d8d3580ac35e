"""Writing systems: which characters are written without spaces between words, and text cut into terms."""

from __future__ import annotations

import re
import unicodedata

# Character classes for use inside [...]: Han with its marks and extensions, kana, Bopomofo.
CJK = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
)
# Punctuation that belongs to East Asian text: ideographic marks and full-width forms of ASCII marks.
CJK_PUNCTUATION = (
    "\u3001-\u3003\u3008-\u3011\u3014-\u301b\uff01-\uff03\uff05-\uff0a\uff0c-\uff0f\uff1a\uff1b\uff1f"
    "\uff3b-\uff3d\uff5b\uff5d\uff5e"
)
# Thai, Lao, Myanmar and Khmer have no spaces between words either; Hangul has them.
SPACELESS = CJK + "\u0e00-\u0e4f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"

# One character of a script without spaces, or a word or number, or one sign that carries meaning (`-`, `<`,
# `%`). Marks of the sentence and quotes are no terms.
_TERM = re.compile(rf"[{SPACELESS}]|[^\W{SPACELESS}]+|[^\w\s.,;:!?'\"`()]")
_TYPOGRAPHIC = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u3001": ",", "\u3002": "."}
    | dict.fromkeys("\u300a\u300b\u300c\u300d\u300e\u300f\u3010\u3011\u00ab\u00bb", '"')
)


def fold(text: str) -> str:
    """Text for comparing, never for training: NFKC, case folded, typographic quotes and full stops made plain.

    >>> fold("ＡＢＣ，“Ｈi”。")
    'abc,"hi".'
    """
    if text.isascii():
        return text.casefold()
    folded = unicodedata.normalize("NFKC", text.translate(_TYPOGRAPHIC)).casefold()
    # Case folding can take text out of the normal form (U+0345), and full-width quotes arise only now.
    return unicodedata.normalize("NFKC", folded)


def terms(text: str) -> list[str]:
    """Folded text cut into words, numbers, meaning signs, and single characters of scripts without spaces.

    >>> terms("Zahle 12,5 % an 张三。")
    ['zahle', '12', '5', '%', 'an', '张', '三']
    """
    return _TERM.findall(fold(text))


_SPACELESS_CHARACTER = re.compile(rf"[{SPACELESS}]")


def is_spaceless(term: str) -> bool:
    """Whether a term of `terms` is a character of a script without spaces."""
    return len(term) == 1 and _SPACELESS_CHARACTER.match(term) is not None
