"""One request as the client saw it. Seconds count from the start of the run, on the client's monotonic clock."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

# `cut`: the stream ended without its last event. `unfinished`: still running when the run was ended.
# `wrong_adapter`: complete, and by the server's word from an adapter that was not asked.
# `unloaded`: 404 for an adapter that the measurement itself had unloaded.
Outcome = Literal[
    "ok",
    "rejected",
    "error",
    "timeout",
    "connect",
    "cut",
    "wrong_length",
    "wrong_adapter",
    "cancelled",
    "unfinished",
    "unloaded",
]
# What is neither an answer nor a refusal, nor an end that the measurement itself made.
FAILED: frozenset[Outcome] = frozenset(
    {"error", "timeout", "connect", "cut", "wrong_length", "wrong_adapter"}
)


@dataclass(slots=True)
class Record:
    """Times of one request, whatever became of it."""

    number: int  # place in the schedule
    scheduled_seconds: float  # when it was due; in a closed loop when it was sent
    sent_seconds: float
    adapter: str | None  # as asked for; None: the base
    max_tokens: int
    outcome: Outcome = "unfinished"
    status: int | None = None
    code: str | None = None  # the server's word for what went wrong, or the client's
    head_seconds: float | None = None  # the status line came
    event_seconds: list[float] = field(default_factory=list)  # events that brought text
    done_seconds: float | None = None  # the last byte came
    prompt_tokens: int | None = None  # the server's count
    completion_tokens: int | None = None  # the server's count
    version: str | None = None  # that answered, where the server says so
    server_timing: dict[str, float | None] | None = None  # of /generate: `timing`, milliseconds
    retry_after_seconds: float | None = None  # of a rejection, where it says so
    cold: bool = False  # the first answer of a version that was loaded during the run

    @property
    def ok(self) -> bool:
        """A complete answer of the length that was asked for."""
        return self.outcome == "ok"

    @property
    def failure(self) -> str | None:
        """Why it was not answered in full, in a few words; None for one that was."""
        if self.ok:
            return None
        return f"{self.outcome}: {self.code}" if self.code else self.outcome

    @property
    def dispatch_delay_seconds(self) -> float:
        """How late the client was."""
        return self.sent_seconds - self.scheduled_seconds

    @property
    def ttft_seconds(self) -> float | None:
        """Due to first text."""
        return self.event_seconds[0] - self.scheduled_seconds if self.event_seconds else None

    @property
    def ttft_sent_seconds(self) -> float | None:
        """Sent to first text: what the server did, whatever the client's delay."""
        return self.event_seconds[0] - self.sent_seconds if self.event_seconds else None

    @property
    def tpot_seconds(self) -> float | None:
        """Mean seconds per token after the first; None below two tokens, or when nothing was streamed."""
        if not self.event_seconds or self.completion_tokens is None or self.completion_tokens < 2:
            return None
        return (self.event_seconds[-1] - self.event_seconds[0]) / (self.completion_tokens - 1)

    @property
    def e2e_seconds(self) -> float | None:
        """Due to last byte."""
        return None if self.done_seconds is None else self.done_seconds - self.scheduled_seconds

    @property
    def chunk_gaps_seconds(self) -> list[float]:
        """Time between events (inter-chunk latency, ICL)."""
        return [later - earlier for earlier, later in itertools.pairwise(self.event_seconds)]

    def tokens_between(self, start: float, end: float) -> float:
        """Tokens whose event came after `start` and up to `end`; each event counts as its share of the answer's.

        Tokens of an answer that came in one piece are taken to be spread evenly over its time.
        """
        count = len(self.event_seconds)
        if count:
            each = self.completion_tokens / count if self.completion_tokens is not None else 1.0
            return each * sum(start < seconds <= end for seconds in self.event_seconds)
        if self.completion_tokens is None or self.done_seconds is None:
            return 0.0
        overlap = min(end, self.done_seconds) - max(start, self.sent_seconds)
        return self.completion_tokens * max(0.0, overlap) / max(1e-9, self.done_seconds - self.sent_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, for a line of JSON; microseconds are plenty."""
        return {name: _rounded(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Record:
        """The inverse of `to_dict`."""
        return cls(**fields)


def write_records(path: Path, records: Iterable[Record], *, append: bool = False, **head: Any) -> None:
    """One JSON object a line, each with the fields of `head` before its own."""
    with path.open("a" if append else "w", encoding="utf-8") as out:
        for record in records:
            out.write(json.dumps({**head, **record.to_dict()}) + "\n")


def read_records(path: Path) -> list[Record]:
    """The inverse of `write_records` without a head."""
    with path.open(encoding="utf-8") as lines:
        return [Record.from_dict(json.loads(line)) for line in lines]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [round(one, 6) for one in value]
    return value
