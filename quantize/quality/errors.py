"""Errors of measuring quality."""

from __future__ import annotations

from typing import ClassVar

from bases.errors import HotswapError


class QualityError(HotswapError):
    """What a base answers cannot be measured. The text says why, and what to do."""

    code: ClassVar[str] = "quality_failed"
