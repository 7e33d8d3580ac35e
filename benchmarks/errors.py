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


class NoAnswerError(BenchmarkError):
    """Not one request of a block was answered, so that there is nothing to compare."""

    code: ClassVar[str] = "benchmark_no_answer"


class ClientFailedError(BenchmarkError):
    """The load client ended without a result."""

    code: ClassVar[str] = "benchmark_client_failed"


class ToolInstallError(BenchmarkError):
    """An outside tool could not be installed."""

    code: ClassVar[str] = "benchmark_tool_install"
