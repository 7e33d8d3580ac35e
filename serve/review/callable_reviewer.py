"""A reviewer of the operator's own: a function that is given a text and says what it thinks of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from serve.review.subject import Subject
from serve.review.text_reviewer import Taken
from serve.review.threads import ReviewThreads
from serve.review.verdict import Flag, Opinion, Redact, Refuse, Stage

STAGES: tuple[Stage, ...] = ("prompt", "answer")
_MAX_RULE_CHARS = 64


class CallableReviewer:
    """Implements TextReviewer around `review(stage, text, subject)`, a function or a coroutine function.

    A function runs in a thread. A coroutine function runs on the event loop and must not block it. An attribute
    `stages` of the function, ("prompt",) or ("answer",), says that it looks at nothing else.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, threads: ReviewThreads) -> None:
        self.name = name
        self._function = function
        self._threads = threads
        self._stages = frozenset(getattr(function, "stages", STAGES))
        self._waits = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose call is a coroutine function
        )

    def reads(self, stage: Stage, subject: Subject) -> bool:
        del subject
        return stage in self._stages

    async def whole(self, stage: Stage, text: str, subject: Subject) -> Sequence[Opinion]:
        if self._waits:
            return _checked(stage, await self._function(stage, text, subject))
        return _checked(stage, await self._threads.run(self._function, stage, text, subject))

    def stream(self, subject: Subject) -> _Whole:
        return _Whole(self, subject)


class _Whole:
    """Implements TextStream: nothing goes out before the answer is complete and was looked at as one."""

    def __init__(self, reviewer: CallableReviewer, subject: Subject) -> None:
        self._reviewer = reviewer
        self._subject = subject
        self._parts: list[str] = []

    @property
    def held(self) -> str:
        return "".join(self._parts)

    async def take(self, text: str, *, last: bool) -> Taken:
        self._parts.append(text)
        if not last:
            return Taken()
        whole = self.held
        opinions = await self._reviewer.whole("answer", whole, self._subject)
        redacted = [each.text for each in opinions if isinstance(each, Redact)]
        self._parts.clear()
        return Taken(redacted[-1] if redacted else whole, opinions)


def _checked(stage: Stage, verdict: Any) -> list[Opinion]:
    """A verdict as a list, a refusal last. Raises TypeError for what is none."""
    if verdict is None:
        return []
    found = [verdict] if isinstance(verdict, Refuse | Redact | Flag) else list(verdict)
    for opinion in found:
        if not isinstance(opinion, Refuse | Redact | Flag):
            raise TypeError(f"a reviewer says Refuse, Redact, Flag or nothing, not {type(opinion).__name__}")
        if not isinstance(opinion.rule, str) or not 0 < len(opinion.rule) <= _MAX_RULE_CHARS:
            raise TypeError(f"the name of a rule has 1 to {_MAX_RULE_CHARS} characters")
        if isinstance(opinion, Redact) and (stage == "prompt" or not isinstance(opinion.text, str)):
            raise TypeError("only an answer can be redacted, and into a text")
    return sorted(found, key=lambda opinion: isinstance(opinion, Refuse))
