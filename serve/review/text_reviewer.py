"""What every reviewer can do, whether it is the shipped policy or somebody's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serve.review.subject import Subject
from serve.review.verdict import Opinion, Stage


@dataclass(frozen=True, slots=True)
class Taken:
    """What a review of a stream lets out, and what it has to say; a refusal stands last."""

    text: str = ""
    opinions: Sequence[Opinion] = ()


class TextStream(Protocol):
    """One reviewer's look at one text that comes in pieces."""

    @property
    def held(self) -> str:
        """What came and has not gone out."""

    async def take(self, text: str, *, last: bool) -> Taken:
        """Add a piece. Whatever it raises is a failure of the reviewer, which is then asked no more."""


class TextReviewer(Protocol):
    """Looks at texts. Whatever it raises, and a look that takes too long, is a failure of the reviewer."""

    name: str

    def reads(self, stage: Stage, subject: Subject) -> bool:
        """Whether it looks at texts of that stage and request at all."""

    async def whole(self, stage: Stage, text: str, subject: Subject) -> Sequence[Opinion]:
        """What there is to say of a whole text. The last Redact has the text with everything redacted."""

    def stream(self, subject: Subject) -> TextStream:
        """A look at one answer as it comes."""
