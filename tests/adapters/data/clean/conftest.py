"""Short ways to write examples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from adapters.data.example import Example, Message, Origin

Make = Callable[..., Example]


@pytest.fixture
def ask() -> Make:
    """`ask(prompt, answer, label=None, system=None)`: a chat example with the next line of data.jsonl as origin."""
    lines = count(1)

    def make(
        prompt: str, answer: str = "yes", *, label: str | None = None, system: str | None = None
    ) -> Example:
        turns = (Message("user", prompt), Message("assistant", answer))
        first = () if system is None else (Message("system", system),)
        return Example(Origin("data.jsonl", next(lines)), messages=(*first, *turns), label=label)

    return make


@pytest.fixture
def plain() -> Make:
    """`plain(text)`: a text example."""
    lines = count(1)
    return lambda text: Example(Origin("data.jsonl", next(lines)), text=text)
