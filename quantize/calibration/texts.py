"""Which examples are calibrated with, which are measured with, and which the first should be like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.data.content import content_digest
from adapters.data.example import Example
from adapters.data.read import read_examples
from adapters.data.split import split_examples
from quantize.calibration.default_set import default_examples, default_held_out
from quantize.calibration.errors import CalibrationError

HELD_OUT_SHARE = 0.2
DEFAULT_SOURCE = "the default set"
_CHAT = "everyday chat (the held-out part of the default set)"


@dataclass(frozen=True, slots=True)
class Texts:
    """Examples on either side of the line, and where they come from."""

    source: str
    calibration: list[Example]
    held_out: list[Example]
    compared: list[Example]
    """What the base will be asked: the calibration text should be like it."""
    compared_source: str


def shipped_texts() -> Texts:
    """The shipped set; its held-out part is what it is compared with too."""
    held_out = default_held_out()
    return Texts(DEFAULT_SOURCE, default_examples(), held_out, held_out, _CHAT)


def user_texts(data: Sequence[Path], seed: int) -> Texts:
    """The user's examples, a fifth of them held out; equal texts stay on one side.

    They are compared with the shipped held-out chat, which stands for what a served base is asked. Raises
    CalibrationError for fewer than two different examples.
    """
    source = _source(data)
    split = split_examples(
        _read(data), validation_share=HELD_OUT_SHARE, test_share=0.0, seed=seed, stratify=False
    )
    if not split.validation:
        raise CalibrationError(
            f"The calibration text ({source}) has no two different examples; one part of them is calibrated with "
            "and another measured on. Give more examples, or an evaluation file of its own."
        )
    return Texts(source, list(split.train), list(split.validation), default_held_out(), _CHAT)


def evaluated_texts(data: Sequence[Path], evaluation: Sequence[Path]) -> Texts:
    """Measured on and compared with the `evaluation` files; what is in them is not calibrated with.

    `data` are the user's files; none of them is the shipped set. Raises CalibrationError where nothing is left.
    """
    held_out = _read(evaluation)
    known = {content_digest(example) for example in held_out}
    everything = _read(data) if data else default_examples()
    source = _source(data) if data else DEFAULT_SOURCE
    calibration = [example for example in everything if content_digest(example) not in known]
    if not calibration:
        raise CalibrationError(
            f"All examples of the calibration text ({source}) are in the evaluation text too: nothing is left to "
            "calibrate with. Give another file for one of them."
        )
    return Texts(source, calibration, held_out, held_out, f"the evaluation text ({_source(evaluation)})")


def _source(data: Sequence[Path]) -> str:
    return ", ".join(path.name for path in data)


def _read(paths: Sequence[Path]) -> list[Example]:
    return [example for path in paths for example in read_examples(path)]
