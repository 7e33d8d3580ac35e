"""The load that both sides put on the server, and what each says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.workload.arrivals import Arrivals


@dataclass(frozen=True, slots=True)
class Workload:
    """Streamed answers of `/v1/completions`, all prompts of one length and all answers of another."""

    url: str
    model: str  # as the server calls it
    tokenizer: Path  # folder of the base, by which the tool makes its prompts
    arrivals: Arrivals  # closed or constant
    seconds: float
    prompt_tokens: int
    answer_tokens: int
    seed: int

    @property
    def workers(self) -> int | None:
        """Requests under way at once; None in an open loop."""
        return self.arrivals.workers if self.arrivals.closed else None

    @property
    def rate(self) -> float:
        """Requests per second of an open loop, evenly spaced."""
        return self.arrivals.values[0]


@dataclass(frozen=True, slots=True)
class Reading:
    """Medians of one run by one side, by our definitions: TTFT from sending, TPOT without the first token."""

    requests: int  # answered in full
    failed: int
    ttft_seconds: float
    tpot_seconds: float
    prompt_tokens: float  # median, by the server's count
    as_called: dict[str, float]  # what the tool itself prints under other names or definitions
