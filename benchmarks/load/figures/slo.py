"""Latency limits that an answer has to keep to count as good."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.load.client.record import Record
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.numbers_text import split_option


@dataclass(frozen=True, slots=True)
class Slo:
    """An answer is good when it is complete and within both limits."""

    name: str
    ttft_seconds: float
    tpot_seconds: float

    def good(self, record: Record) -> bool:
        """Whether a request counts. An answer of one token has no time per token to keep; one that was not
        streamed has to come whole within what both limits allow for its length."""
        if not record.ok:
            return False
        if record.ttft_seconds is None:
            tokens = max(1, record.completion_tokens or record.max_tokens)
            limit = self.ttft_seconds + self.tpot_seconds * (tokens - 1)
            return record.e2e_seconds is not None and record.e2e_seconds <= limit
        if record.ttft_seconds > self.ttft_seconds:
            return False
        return record.tpot_seconds is None or record.tpot_seconds <= self.tpot_seconds

    def shown(self) -> dict[str, float | str]:
        """For the report."""
        return {"name": self.name, "ttft_seconds": self.ttft_seconds, "tpot_seconds": self.tpot_seconds}


# TTFT and TPOT in seconds. Sources: MLPerf inference (llama2-70b server and interactive), GuideLLM's SLO guide.
PRESETS: dict[str, Slo] = {
    slo.name: slo
    for slo in (
        Slo("mlperf-server", 2.0, 0.2),
        Slo("mlperf-interactive", 0.45, 0.04),
        Slo("chat", 0.2, 0.05),
        Slo("rag", 0.3, 0.1),
        Slo("code", 0.5, 0.15),
        Slo("content", 0.6, 0.2),
    )
}


def parse_slo(text: str) -> Slo:
    """A preset's name, or `own:ttft=0.5,tpot=0.05` in seconds. Raises LoadOptionError."""
    if text in PRESETS:
        return PRESETS[text]
    if not text.startswith("own:"):
        raise LoadOptionError(
            f"--slo {text!r} is none of {', '.join(PRESETS)}, and not own:ttft=0.5,tpot=0.05"
        )
    _, (ttft, tpot) = split_option(text, option="--slo", known={"own": ("ttft", "tpot")})
    if not ttft or not tpot:
        raise LoadOptionError(f"--slo {text}: limits are above 0 seconds")
    return Slo(text, ttft, tpot)
