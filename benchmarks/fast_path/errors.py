"""Why answers cannot be compared."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.errors import BenchmarkError


class ReferenceFileError(BenchmarkError):
    """A file of reference answers is not there, or cannot be read."""

    code: ClassVar[str] = "fast_path_reference_file"


class StaleReferenceError(BenchmarkError):
    """The reference answers belong to something else than what is asked now."""

    code: ClassVar[str] = "fast_path_stale_reference"


class AnswerLostError(BenchmarkError):
    """The gateway did not answer a question; what was answered before is kept."""

    code: ClassVar[str] = "fast_path_answer_lost"
