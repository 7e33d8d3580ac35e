"""Turns of what is compared, so that drift of the machine affects all of it equally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The items in turn order, another one first in each round."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]
