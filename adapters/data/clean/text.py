"""The text step: characters, HTML and whitespace of every part of every example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from adapters.data.clean.characters import clean_characters
from adapters.data.clean.markup import strip_markup
from adapters.data.clean.whitespace import clean_whitespace
from adapters.data.example import Example
from adapters.data.step import StepResult

# Cleaning one thing can bring another to light (an entity that spells a space). Real text is stable after two
# rounds; the bound is for text made to be unpleasant.
_MAX_ROUNDS = 12


def clean_text(
    examples: Sequence[Example], *, unicode: bool = True, html: bool = True, whitespace: bool = True
) -> StepResult:
    """Every example with clean texts; none is removed, and cleaning twice changes nothing more.

    - `unicode`: wrong decoding mended, control and invisible characters dropped, composed form (NFC);
    - `html`: tags, comments, scripts and entities (see `markup.strip_markup`);
    - `whitespace`: see `whitespace.clean_whitespace`. Between a raw prompt and its completion it stays as it is,
      for there it is part of what the model reads and writes.

    `changed` counts examples; `counts` says how many of them each rule touched.
    """
    kept = []
    touched: Counter[str] = Counter()
    for example in examples:
        cleaned, rules = _clean_example(example, unicode=unicode, html=html, whitespace=whitespace)
        kept.append(cleaned)
        touched.update(rules)
    counts = tuple((rule, touched[rule]) for rule in ("unicode", "html", "whitespace") if touched[rule])
    changed = sum(before != after for before, after in zip(examples, kept, strict=True))
    return StepResult(name="text", kept=tuple(kept), changed=changed, counts=counts)


def _clean_example(
    example: Example, *, unicode: bool, html: bool, whitespace: bool
) -> tuple[Example, set[str]]:
    """The cleaned example, and the names of the rules that changed it."""
    before = parts = example.parts()
    is_answer = _answers(example)
    is_raw = example.shape == "completion" and len(parts) == 2
    rules: set[str] = set()
    for _ in range(_MAX_ROUNDS):
        start = parts
        if unicode:
            parts = _note(rules, "unicode", parts, tuple(clean_characters(part) for part in parts))
        if html:
            parts = _note(rules, "html", parts, strip_markup(parts, is_answer=is_answer))
        if whitespace:
            spaced = tuple(
                clean_whitespace(part, keep_start=is_raw and index == 1, keep_end=is_raw and index == 0)
                for index, part in enumerate(parts)
            )
            parts = _note(rules, "whitespace", parts, spaced)
        if parts == start:
            break
    return (example if parts == before else example.with_parts(parts)), rules


def _note(rules: set[str], rule: str, before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    if before != after:
        rules.add(rule)
    return after


def _answers(example: Example) -> list[bool]:
    """Which parts the model learns to write; a plain text counts as reading matter."""
    if example.messages:
        return [message.role == "assistant" for message in example.messages]
    if example.text is not None:
        return [False] * len(example.parts())
    return [index == len(example.parts()) - 1 for index in range(len(example.parts()))]
