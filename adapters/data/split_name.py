"""Which split a file or a data set's part is, by its name."""

from __future__ import annotations

import re
from typing import Final, Literal

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")

_NAMES: Final[dict[str, Split]] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> Split | None:
    """`train-00000-of-00002` and `train_sft` are train, `dev` is validation, `notes` is None."""
    return _NAMES.get(re.split(r"[-_. ]", name.lower(), maxsplit=1)[0])
