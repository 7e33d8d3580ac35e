"""What a reviewer says of a text. A reviewer of your own returns these; docs/review.md shows how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Stage = Literal["prompt", "answer"]
Outcome = Literal["passed", "flagged", "redacted", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Refuse:
    """The text may not pass. `message` is what the client is told; it should not repeat the text."""

    rule: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Redact:
    """The text passes as `text`. For answers; a prompt reaches the model as it was written, or not at all."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Flag:
    """The text passes, and the audit log says so."""

    rule: str


Opinion = Refuse | Redact | Flag
Verdict = Opinion | Sequence[Opinion] | None  # None: nothing to say


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that spoke, for the audit log and the metrics. Never holds the text."""

    reviewer: str
    rule: str
    stage: Stage
    outcome: Outcome
    sha256: str  # of the text that was looked at; of a stream, as far as it had come
