"""The length step: examples with nothing to learn from, or too much, in characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from adapters.data.example import Example
from adapters.data.step import Finding, StepResult


def filter_length(
    examples: Sequence[Example], *, min_characters: int, max_characters: int | None
) -> StepResult:
    """The examples whose prompt and answer together have `min_characters` to `max_characters` (None: no limit).

    Examples with an empty answer or an empty prompt go whatever the limits. System messages count.
    Characters are Unicode code points: a Chinese character is one, as a Latin letter is.
    """
    kept, removed = [], []
    kinds: Counter[str] = Counter()
    for example in examples:
        verdict = _verdict(example, min_characters, max_characters)
        if verdict is None:
            kept.append(example)
        else:
            kind, reason = verdict
            kinds[kind] += 1
            removed.append(Finding(example, reason))
    return StepResult(
        name="length", kept=tuple(kept), removed=tuple(removed), counts=tuple(sorted(kinds.items()))
    )


def _verdict(example: Example, minimum: int, maximum: int | None) -> tuple[str, str] | None:
    """(kind, reason) for removal, or None."""
    if not example.answer.strip():
        return ("empty text", "empty text") if example.shape == "text" else ("empty answer", "empty answer")
    if not _asks_something(example):
        return "empty prompt", "empty prompt"
    answer = len(example.answer)
    total = sum(map(len, example.parts()))
    parts = "" if example.shape == "text" else f" (prompt {total - answer:,}, answer {answer:,})"
    if total < minimum:
        return "too short", f"{total:,} characters{parts}, at least {minimum:,} wanted"
    if maximum is not None and total > maximum:
        return "too long", f"{total:,} characters{parts}, at most {maximum:,} wanted"
    return None


def _asks_something(example: Example) -> bool:
    if example.messages:
        return any(message.content.strip() for message in example.messages[:-1])
    return example.text is not None or bool(example.prompt and example.prompt.strip())
