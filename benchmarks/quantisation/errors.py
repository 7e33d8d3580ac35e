"""Why a report cannot be made."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.errors import BenchmarkError


class MadeBaseError(BenchmarkError):
    """A base, adapter or quantised form that the report needs is not there or is another one."""

    code: ClassVar[str] = "benchmark_made_base"


class RecordError(BenchmarkError):
    """What an earlier part recorded is missing or cannot be read."""

    code: ClassVar[str] = "benchmark_record"
