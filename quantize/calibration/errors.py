"""Errors of calibration."""

from __future__ import annotations

from typing import ClassVar

from bases.errors import HotswapError


class CalibrationError(HotswapError):
    """No calibration rows can be made. The text says of what, and what to do."""

    code: ClassVar[str] = "calibration_failed"
