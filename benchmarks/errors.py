"""Why a measurement cannot be made."""

from __future__ import annotations

from typing import ClassVar

from bases.errors import HotswapError


class BenchmarkError(HotswapError):
    """A measurement cannot be made."""

    code: ClassVar[str] = "benchmark_error"


class PlanError(BenchmarkError):
    """The options ask for something that cannot be measured."""

    code: ClassVar[str] = "benchmark_plan"


class ServerStartError(BenchmarkError):
    """A server that is to be measured did not come up."""

    code: ClassVar[str] = "benchmark_server_start"


class ToolInstallError(BenchmarkError):
    """An outside tool could not be installed."""

    code: ClassVar[str] = "benchmark_tool_install"
