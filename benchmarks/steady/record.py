"""One request of a steady load as the client saw it. Seconds count from the start of the load."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(slots=True)
class Record:
    """`error` None and `done_seconds` set: the whole answer came, with the length asked for."""

    lane: int
    adapter: str | None  # that was asked for; None: the base
    sent_seconds: float
    version: str | None = None  # that answered, by the server's word
    first_seconds: float | None = None  # first event with text
    last_seconds: float | None = None
    done_seconds: float | None = None  # last byte
    tokens: int | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """True for a complete answer."""
        return self.error is None and self.done_seconds is not None

    @property
    def ttft_seconds(self) -> float | None:
        """Sent to first text."""
        return None if self.first_seconds is None else self.first_seconds - self.sent_seconds

    @property
    def tpot_seconds(self) -> float | None:
        """Mean seconds per token after the first; None for answers of one token."""
        if self.first_seconds is None or self.last_seconds is None or (self.tokens or 0) < 2:
            return None
        return (self.last_seconds - self.first_seconds) / ((self.tokens or 0) - 1)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """One JSON object a line."""
    with path.open("w", encoding="utf-8") as out:
        for record in records:
            fields = asdict(record)
            rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in fields.items()}
            out.write(json.dumps(rounded) + "\n")


def read_records(path: Path) -> list[Record]:
    """The inverse of `write_records`."""
    with path.open(encoding="utf-8") as lines:
        return [Record(**json.loads(line)) for line in lines]
