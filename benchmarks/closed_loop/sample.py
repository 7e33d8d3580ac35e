"""One request as the client saw it. Seconds count from the start of the block, on the client's clock."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Stage = Literal["warmup", "measured", "cooldown"]


@dataclass(slots=True)
class Sample:
    """Times of one request; `error` None means that the whole answer came, with the length asked for."""

    worker: int
    stage: Stage
    prompt: int
    sent_seconds: float
    done_seconds: float | None = None  # last byte; None: ended by the client after the measurement
    event_seconds: list[float] = field(default_factory=list)  # events with text, in order of arrival
    prompt_tokens: int | None = None
    completion_tokens: int | None = None  # the server's own count
    error: str | None = None

    @property
    def ok(self) -> bool:
        """True for a complete answer."""
        return self.error is None and self.done_seconds is not None

    @property
    def ttft_seconds(self) -> float | None:
        """Request sent to first text; None when nothing was streamed."""
        return self.event_seconds[0] - self.sent_seconds if self.event_seconds else None

    @property
    def tpot_seconds(self) -> float | None:
        """Mean seconds per token after the first; None for answers of one token or that were not streamed."""
        if not self.event_seconds or self.completion_tokens is None or self.completion_tokens < 2:
            return None
        return (self.event_seconds[-1] - self.event_seconds[0]) / (self.completion_tokens - 1)

    @property
    def e2e_seconds(self) -> float | None:
        """Request sent to last byte."""
        return self.done_seconds - self.sent_seconds if self.done_seconds is not None else None

    def tokens_between(self, start: float, end: float) -> float:
        """Tokens that arrived after `start` and up to `end`.

        An event may carry more than one token: each counts as its share of the server's count. Tokens of an
        answer that came in one piece are taken to be spread evenly over its time.
        """
        if self.event_seconds:
            num_events = len(self.event_seconds)
            per_event = self.completion_tokens / num_events if self.completion_tokens is not None else 1.0
            return per_event * sum(start < seconds <= end for seconds in self.event_seconds)
        if self.completion_tokens is None or self.done_seconds is None or not self.ok:
            return 0.0
        overlap = min(end, self.done_seconds) - max(start, self.sent_seconds)
        return self.completion_tokens * max(0.0, overlap) / (self.done_seconds - self.sent_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, for JSON."""
        return asdict(self)
