"""Errors of the recovery adapter."""

from __future__ import annotations

from typing import ClassVar

from quantize.errors import QuantizeError


class RecoveryError(QuantizeError):
    """No recovery adapter can be made. The text says why and what to do."""

    code: ClassVar[str] = "recovery_failed"
