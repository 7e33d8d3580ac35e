"""Errors of making a quantised base.

QuantizeError                  bases.errors.HotswapError with the code quantize_failed
├── QuantizeSettingsError      settings that cannot be used, or not together
├── PreflightError             what was found before the long part, every problem at once
└── CompressorError            llm-compressor failed; nothing was written
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bases.errors import HotswapError


class QuantizeError(HotswapError):
    """A quantised base cannot be made."""

    code: ClassVar[str] = "quantize_failed"


class QuantizeSettingsError(QuantizeError):
    """Settings that cannot be used, or not together."""

    code: ClassVar[str] = "quantize_settings_invalid"


class PreflightError(QuantizeError):
    """Everything that stands in the way, found before the long part."""

    code: ClassVar[str] = "quantize_preflight"

    def __init__(self, base: str, problems: Sequence[str]) -> None:
        """`problems` is a full sentence each; there is at least one."""
        if len(problems) == 1:
            text = problems[0]
        else:
            text = f"{base} cannot be quantised so:\n" + "\n".join(f"- {problem}" for problem in problems)
        super().__init__(text)
        self.problems = tuple(problems)


class CompressorError(QuantizeError):
    """llm-compressor failed on this base."""

    code: ClassVar[str] = "quantize_compressor_failed"
