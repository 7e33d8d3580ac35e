"""Why an outside tool cannot be asked."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.errors import BenchmarkError


class ToolRunError(BenchmarkError):
    """An outside tool ended without figures."""

    code: ClassVar[str] = "agreement_tool_run"
