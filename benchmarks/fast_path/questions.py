"""What is asked: prompts of mixed lengths, each of the base or of one of the adapters."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fidelity.answers import Messages

# Words of a prompt, dealt in turn: neighbours in a batch differ, and prompts come in short and long runs of rows.
PROMPT_WORDS = (4, 8, 16, 24, 64)


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt. `number` is its place; `adapter` None is the base."""

    number: int
    adapter: str | None
    messages: Messages

    @property
    def sha256(self) -> str:
        """Of the messages."""
        return hashlib.sha256(json.dumps(self.messages, sort_keys=True).encode()).hexdigest()


def make_questions(texts: Sequence[str], count: int, adapters: int) -> list[Question]:
    """`count` prompts cut from the words of `texts`, which are used again when they end.

    Neighbours have different adapters, called adapter-0, adapter-1 and so on, and every so often there is none.
    The first of many are the same as the first of few. Raises ValueError where the texts hold no word.
    """
    words = [word for text in texts for word in text.split()]
    if not words:
        raise ValueError("the texts hold no words")
    stream = itertools.cycle(words)
    names = itertools.cycle([None, *(f"adapter-{number}" for number in range(adapters))])
    lengths = itertools.cycle(PROMPT_WORDS)
    questions = []
    for number, name, length in zip(range(count), names, lengths, strict=False):
        prompt = " ".join(itertools.islice(stream, length))
        questions.append(Question(number, name, [{"role": "user", "content": prompt}]))
    return questions
