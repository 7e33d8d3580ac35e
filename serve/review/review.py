"""Looks at prompts before, and at answers after they are generated."""

from __future__ import annotations

from collections.abc import Sequence

from serve.review.subject import Subject


class StreamReview:
    """Reviews one sequence of a stream: holds text back for as long as it might still turn out to be refused."""

    async def feed(self, text: str) -> str:
        """Take what was generated; returns what may go out now. Raises ReviewRefusedError."""
        return text

    async def finish(self) -> str:
        """What may still go out at the end. Raises ReviewRefusedError."""
        return ""


class Reviewer:
    """All reviewers of one gateway in turn. Without any, text passes as it is."""

    @property
    def active(self) -> bool:
        """Whether anybody looks."""
        return False

    async def prompt(self, subject: Subject, texts: Sequence[str]) -> None:
        """Look at what the client wrote. Raises ReviewRefusedError."""

    async def answer(self, subject: Subject, text: str) -> str:
        """The text of a whole answer as it may go out. Raises ReviewRefusedError."""
        del subject
        return text

    def stream(self, subject: Subject) -> StreamReview:
        """A review of one sequence that is sent piece by piece."""
        del subject
        return StreamReview()
