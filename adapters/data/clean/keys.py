"""What of an example is compared when duplicates are sought: keys that ignore case, spacing and punctuation."""

from __future__ import annotations

import re
from hashlib import blake2b

from adapters.data.clean.script import CJK, fold
from adapters.data.example import Example

# Marks at the end of a word or beside an East Asian character. Inside a number, a name or an expression
# (`1.5`, `a.b`, `x!=y`) they mean something.
_MARKS_AT_WORD_END = re.compile(r"[,.;:!?\u2026]+(?=[\s)\]}\"']|$)")
_MARKS_BESIDE_CJK = re.compile(rf"(?<=[{CJK}])[,.;:!?]+|[,.;:!?]+(?=[{CJK}])")
_SPACE_BESIDE_CJK = re.compile(rf"(?<=[{CJK}])\s+|\s+(?=[{CJK}])")


def normalised(text: str) -> str:
    """Text in which case, width, kinds of quotes, whitespace and sentence punctuation make no difference.

    Everything else does: digits, signs, brackets, quotes, word order.

    >>> normalised("Pay  12.50 EUR, now!") == normalised("pay 12.50 eur now")
    True
    >>> normalised("x != 5") == normalised("x = 5")
    False
    """
    folded = " ".join(fold(text).split())
    plain = _MARKS_AT_WORD_END.sub("", folded)
    if not plain.isascii():
        plain = _SPACE_BESIDE_CJK.sub("", _MARKS_BESIDE_CJK.sub("", plain))
    return " ".join(plain.split()) or folded


def prompt_text(example: Example) -> str:
    """What the model reads, without system messages; for a plain text the text itself."""
    if example.messages:
        return "\n".join(message.content for message in example.messages[:-1] if message.role != "system")
    return example.text if example.text is not None else example.prompt or ""


def exact_key(example: Example) -> bytes:
    """Equal for examples that are the same but for case, spacing and punctuation: all texts, roles, label."""
    roles: list[str] = [message.role for message in example.messages] or [example.shape]
    return _digest(*roles, *map(normalised, example.parts()), _label(example))


def prompt_key(example: Example) -> bytes | None:
    """Equal for examples that ask the same, whatever the answer; None where nothing is asked (plain text)."""
    if example.messages:
        turns = example.messages[:-1]
        return _digest(*(turn.role for turn in turns), *(normalised(turn.content) for turn in turns))
    return None if not example.prompt else _digest(normalised(example.prompt))


def answer_key(example: Example) -> bytes:
    """Equal for examples with the same answer and label; for a plain text the same for all."""
    if example.shape == "text":
        return _digest(_label(example))
    return _digest(normalised(example.answer), _label(example))


def comparison_key(example: Example) -> bytes:
    """Only examples that agree in this are compared at all: the answer, the label and the system messages."""
    system = (normalised(message.content) for message in example.messages if message.role == "system")
    return _digest(example.shape == "text", answer_key(example), *system)


def _label(example: Example) -> str:
    return "" if example.label is None else "=" + example.label.strip().casefold()


def _digest(*fields: object) -> bytes:
    digest = blake2b(digest_size=16)
    for field in fields:
        data = field if isinstance(field, bytes) else str(field).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()
