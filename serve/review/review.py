"""Looks at prompts before, and at answers after they are generated: every reviewer of the gateway in turn.

What one lets through is what the next one reads. Whoever raises, or takes too long, has failed: the text is then
refused (closed, the default), or passes that reviewer as it is (open). Every refusal, redaction, flag and failure
is an event of the audit log with the digest of the text, never the text.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from adapters.registry.records import Event
from serve.errors import ReviewFailedError, ReviewRefusedError
from serve.observability.metrics import GatewayMetrics
from serve.review.subject import Subject
from serve.review.text_reviewer import Taken, TextReviewer, TextStream
from serve.review.verdict import Opinion, Outcome, Redact, Refuse, Stage

logger = logging.getLogger("hotswap.review")

ACTION = "review"  # of the events
FAILURE_RULE = "failure"
_RANK: tuple[Outcome, ...] = ("passed", "flagged", "redacted", "refused", "failed")


class ReviewLimits:
    """How long one look may take, and what happens to a text whose reviewer failed."""

    def __init__(self, *, seconds: float, fail_open: bool) -> None:
        self.seconds = seconds
        self.fail_open = fail_open


class _Look:
    """One reviewer's look at one text: its clock, its failures, what it leaves in audit log and metrics."""

    def __init__(self, desk: Reviewer, reviewer: TextReviewer, stage: Stage, subject: Subject) -> None:
        self._desk = desk
        self._stage = stage
        self._subject = subject
        self._noted: set[tuple[str, Outcome]] = set()
        self._worst: Outcome = "passed"
        self._seconds = 0.0
        self._digest = hashlib.sha256()
        self.reviewer = reviewer
        self.failed = False

    def read(self, text: str) -> None:
        """That text is part of what is looked at."""
        self._digest.update(text.encode("utf-8", "surrogatepass"))

    async def ask(self, question: Awaitable[Sequence[Opinion] | Taken]) -> Sequence[Opinion] | Taken | None:
        """The answer; None if the reviewer failed and the text passes. Raises ReviewFailedError if it may not."""
        limits = self._desk.limits
        started = time.perf_counter()
        try:
            async with asyncio.timeout(limits.seconds):
                return await question
        except TimeoutError:
            self._fail(f"took longer than {limits.seconds:g} s")
        except Exception as error:  # noqa: BLE001 - the boundary to code that is not ours
            # Its type alone: its text could hold what was reviewed.
            self._fail(f"raised {type(error).__name__}")
        finally:
            self._seconds += time.perf_counter() - started
        return None

    def hear(self, opinions: Sequence[Opinion]) -> None:
        """Write down what was said. Raises ReviewRefusedError."""
        for opinion in opinions:
            if isinstance(opinion, Refuse):
                self._note(opinion.rule, "refused")
                self.end()
                raise ReviewRefusedError(
                    opinion.message or f"the {self._stage} was refused by a review of this server"
                )
            self._note(opinion.rule, "redacted" if isinstance(opinion, Redact) else "flagged")

    def end(self) -> None:
        """Count the look, once it is over."""
        self._desk.count(self.reviewer.name, self._stage, self._worst, self._seconds)

    def _fail(self, why: str) -> None:
        self.failed = True
        logger.error("request %s: the reviewer %r %s", self._subject.request_id, self.reviewer.name, why)
        self._note(FAILURE_RULE, "failed")
        if not self._desk.limits.fail_open:
            self.end()
            raise ReviewFailedError(
                f"the {self._stage} could not be reviewed, and nothing passes unreviewed here; try again later"
            )

    def _note(self, rule: str, outcome: Outcome) -> None:
        """Each rule is written down once for each text."""
        self._worst = max(self._worst, outcome, key=_RANK.index)
        if (rule, outcome) in self._noted:
            return
        self._noted.add((rule, outcome))
        self._desk.write_down(
            self._subject,
            outcome,
            {
                "reviewer": self.reviewer.name,
                "rule": rule,
                "stage": self._stage,
                "sha256": self._digest.copy().hexdigest(),
            },
        )


class StreamReview:
    """Reviews one sequence of a stream: holds text back for as long as it might still turn out to be refused."""

    def __init__(self, parts: Sequence[tuple[_Look, TextStream]] = ()) -> None:
        self._parts = parts

    async def feed(self, text: str) -> str:
        """Take what was generated; returns what may go out now. Raises ReviewRefusedError, ReviewFailedError."""
        if not text:
            return ""
        for look, stream in self._parts:
            text = await self._pass(look, stream, text, last=False)
            if not text:
                break
        return text

    async def finish(self) -> str:
        """What may still go out at the end. Raises ReviewRefusedError, ReviewFailedError."""
        text = ""
        for look, stream in self._parts:
            text = await self._pass(look, stream, text, last=True)
            look.end()
        return text

    async def _pass(self, look: _Look, stream: TextStream, text: str, *, last: bool) -> str:
        if look.failed:
            return text
        held = stream.held + text
        look.read(text)
        taken = await look.ask(stream.take(text, last=last))
        if not isinstance(taken, Taken):
            return held
        look.hear(taken.opinions)
        return taken.text


class Reviewer:
    """All reviewers of one gateway in turn. Without any, text passes as it is."""

    def __init__(
        self,
        reviewers: Sequence[TextReviewer] = (),
        limits: ReviewLimits | None = None,
        *,
        metrics: GatewayMetrics | None = None,
        note: Callable[[Event], None] | None = None,
    ) -> None:
        """`note` writes an event down without waiting (EventLog.note)."""
        self.limits = limits or ReviewLimits(seconds=5.0, fail_open=False)
        self._reviewers = tuple(reviewers)
        self._metrics = metrics
        self._note_event = note

    @property
    def active(self) -> bool:
        """Whether anybody looks."""
        return bool(self._reviewers)

    def reads(self, stage: Stage, subject: Subject) -> bool:
        """Whether anybody looks at that stage of a request."""
        return any(reviewer.reads(stage, subject) for reviewer in self._reviewers)

    async def prompt(self, subject: Subject, texts: Sequence[str]) -> None:
        """Look at what the client wrote, as one text. Raises ReviewRefusedError, ReviewFailedError."""
        await self._whole("prompt", subject, "\n".join(texts))

    async def answer(self, subject: Subject, text: str) -> str:
        """The text of a whole answer as it may go out. Raises ReviewRefusedError, ReviewFailedError."""
        return await self._whole("answer", subject, text) if text else text

    def stream(self, subject: Subject) -> StreamReview:
        """A review of one sequence that is sent piece by piece."""
        return StreamReview(
            [
                (_Look(self, reviewer, "answer", subject), reviewer.stream(subject))
                for reviewer in self._reviewers
                if reviewer.reads("answer", subject)
            ]
        )

    async def _whole(self, stage: Stage, subject: Subject, text: str) -> str:
        for reviewer in self._reviewers:
            if not reviewer.reads(stage, subject):
                continue
            look = _Look(self, reviewer, stage, subject)
            look.read(text)
            opinions = await look.ask(reviewer.whole(stage, text, subject))
            if opinions is not None and not isinstance(opinions, Taken):
                look.hear(opinions)
                redacted = [opinion.text for opinion in opinions if isinstance(opinion, Redact)]
                text = redacted[-1] if redacted else text
            look.end()
        return text

    def count(self, reviewer: str, stage: Stage, outcome: Outcome, seconds: float) -> None:
        """Count one look in the metrics."""
        if self._metrics is not None:
            self._metrics.reviews.labels(reviewer, stage, outcome).inc()
            self._metrics.review_seconds.labels(reviewer).observe(seconds)

    def write_down(self, subject: Subject, outcome: Outcome, detail: dict[str, str]) -> None:
        """Have the audit log say what a reviewer said."""
        if self._note_event is None:
            return
        told = {**detail, "request_id": subject.request_id, "route": subject.route}
        if subject.version is not None:
            told["version"] = subject.version
        self._note_event(Event(subject.caller, ACTION, outcome, subject.adapter, detail=told))
