"""Why a load run cannot be made, or does not count."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.errors import BenchmarkError


class LoadOptionError(BenchmarkError):
    """An option of a load run that means nothing."""

    code: ClassVar[str] = "load_option"


class TargetError(BenchmarkError):
    """The server that is to be measured does not answer as it should."""

    code: ClassVar[str] = "load_target"


class GeneratorFailedError(BenchmarkError):
    """A process that sends requests ended without its result."""

    code: ClassVar[str] = "load_generator_failed"


class NothingMeasuredError(BenchmarkError):
    """No request was answered, so that there is no figure to give."""

    code: ClassVar[str] = "load_nothing_measured"


class ResultFileError(BenchmarkError):
    """A file that should hold the result of a run does not."""

    code: ClassVar[str] = "load_result_file"


class PeerUnavailableError(BenchmarkError):
    """A server that is to be measured beside ours is not on this machine, or cannot serve this base."""

    code: ClassVar[str] = "load_peer_unavailable"
