"""One request as the client saw it. Seconds count from the start of the stage, on the client's clock."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

REFUSED_STATUS = 429


@dataclass(slots=True)
class Record:
    """Times of one request; latencies count from when it was due, not from when the client came to send it."""

    due_seconds: float
    sent_seconds: float = 0.0
    status: int = 0  # 0: there was no answer
    first_seconds: float | None = None  # first text
    done_seconds: float | None = None  # last byte; None: there was none
    tokens: int | None = None
    retry_after_seconds: int | None = None
    error: str | None = None  # None: answered in full, or refused

    @property
    def answered(self) -> bool:
        """True for a whole answer."""
        return self.status == 200 and self.error is None and self.done_seconds is not None

    @property
    def refused(self) -> bool:
        """True for a request that was told to come again later."""
        return self.status == REFUSED_STATUS

    @property
    def ttft_seconds(self) -> float | None:
        """Due to first text."""
        return self.first_seconds - self.due_seconds if self.first_seconds is not None else None

    @property
    def e2e_seconds(self) -> float | None:
        """Due to last byte."""
        return self.done_seconds - self.due_seconds if self.done_seconds is not None else None

    @property
    def service_seconds(self) -> float | None:
        """Sent to last byte."""
        return self.done_seconds - self.sent_seconds if self.done_seconds is not None else None

    @property
    def lag_seconds(self) -> float:
        """How late the client sent it."""
        return self.sent_seconds - self.due_seconds


def write_records(path: Path, records: Iterable[Record]) -> None:
    """As JSON lines."""
    path.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records), encoding="utf-8")


def read_records(path: Path) -> list[Record]:
    """The inverse of `write_records`."""
    return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
