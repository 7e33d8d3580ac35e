"""The shipped policy as a reviewer: short texts at once, long ones and slow expressions in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from serve.access.caller import BASE_NAME
from serve.review.patterns import Passed, PatternRefusalError, Patterns, PatternStream
from serve.review.rules import Rule
from serve.review.subject import Subject
from serve.review.text_reviewer import Taken
from serve.review.threads import ReviewThreads
from serve.review.verdict import Flag, Opinion, Redact, Refuse, Stage

# Longer texts go to a thread; so does a search that takes longer than this on the event loop.
INLINE_CHARS = 4096
_INLINE_SECONDS = 0.02
_MAX_SETS = 256


class PatternReviewer:
    """Implements TextReviewer."""

    def __init__(self, name: str, rules: Sequence[Rule], *, threads: ReviewThreads, seconds: float) -> None:
        """`seconds`: the longest that one search may take."""
        self.name = name
        self._rules = tuple(rules)
        self._threads = threads
        self._seconds = seconds
        self._of = lru_cache(_MAX_SETS)(self._compile)

    def reads(self, stage: Stage, subject: Subject) -> bool:
        adapter = _adapter(subject)
        return any(rule.applies(stage, adapter) for rule in self._rules)

    async def whole(self, stage: Stage, text: str, subject: Subject) -> Sequence[Opinion]:
        stream = _Stream(self._patterns(stage, subject), self._threads, self._seconds)
        taken = await stream.take(text, last=True)
        redacting = [each for each in taken.opinions if isinstance(each, Redact)]
        others = [each for each in taken.opinions if not isinstance(each, Redact)]
        return [*(Redact(each.rule, taken.text) for each in redacting), *others]

    def stream(self, subject: Subject) -> _Stream:
        return _Stream(self._patterns("answer", subject), self._threads, self._seconds)

    def _patterns(self, stage: Stage, subject: Subject) -> Patterns:
        adapter = _adapter(subject)
        return self._of(tuple(rule for rule in self._rules if rule.applies(stage, adapter)))

    def _compile(self, rules: tuple[Rule, ...]) -> Patterns:
        return Patterns(rules, match_seconds=_INLINE_SECONDS)


class _Stream:
    """Implements TextStream."""

    def __init__(self, patterns: Patterns, threads: ReviewThreads, seconds: float) -> None:
        self._stream: PatternStream = patterns.stream()
        self._threads = threads
        self._seconds = seconds

    @property
    def held(self) -> str:
        return self._stream.held

    async def take(self, text: str, *, last: bool) -> Taken:
        stream = self._stream
        try:
            if len(text) > INLINE_CHARS:
                passed = await self._threads.run(self._slowly, text, last)
            else:
                try:
                    passed = stream.take(text, last=last)
                except TimeoutError:
                    passed = await self._threads.run(self._slowly, "", last)
        except PatternRefusalError as error:
            refusal = Refuse(error.rule.name, error.rule.message)
            return Taken(error.passed.text, [*_opinions(error.passed), refusal])
        return Taken(passed.text, _opinions(passed))

    def _slowly(self, text: str, last: bool) -> Passed:
        return self._stream.take(text, last=last, match_seconds=self._seconds)


def _opinions(passed: Passed) -> list[Opinion]:
    return [Redact(rule.name, "") if rule.action == "redact" else Flag(rule.name) for rule in passed.rules]


def _adapter(subject: Subject) -> str:
    return BASE_NAME if subject.adapter is None else subject.adapter
