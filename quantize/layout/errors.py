"""Errors of writing a checkpoint in another layout."""

from __future__ import annotations

from typing import ClassVar

from bases.errors import HotswapError


class LayoutError(HotswapError):
    """The base has no exact form in the layout that was asked for. The text says why, and what to do."""

    code: ClassVar[str] = "layout_failed"
