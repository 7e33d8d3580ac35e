"""The calibration text that Hotswap ships: prompts of many kinds with reference answers, and a held-out part.

Written for this project. It is chat-like because what a served base reads is chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters.data.example import Example
from adapters.data.read import read_examples

_FOLDER = Path(__file__).parent / "default"


def default_examples() -> list[Example]:
    """The examples to calibrate with, each one conversation; the task names the domain."""
    return read_examples(_FOLDER / "prompts.jsonl")


def default_held_out() -> list[Example]:
    """The examples to measure with: the same domains, nothing of them in `default_examples`."""
    return read_examples(_FOLDER / "held_out.jsonl")


def as_plain_text(examples: Sequence[Example]) -> list[Example]:
    """The conversations as raw text, for a base without a chat template."""
    return [
        Example(example.origin, text="\n\n".join(example.parts()), label=example.label, task=example.task)
        for example in examples
    ]
