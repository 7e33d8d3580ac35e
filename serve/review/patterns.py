"""The shipped policy: rules of words, phrases and expressions, on whole texts and on streams.

What a stream lets through is what the whole text would have, however it was cut into pieces: text is held back
from the first place where a rule's match could still depend on what follows, and let go up to there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serve.review.folding import FoldedText
from serve.review.rules import Rule, compile_opener


@dataclass(frozen=True, slots=True)
class Passed:
    """What may go out, and the rules that had something to say of it, each once."""

    text: str
    rules: tuple[Rule, ...] = ()


class PatternRefusalError(Exception):
    """A rule with the action `refuse` matched. Stays inside serve/review."""

    def __init__(self, rule: Rule, passed: Passed) -> None:
        """`passed`: what stood before the match and could have gone out."""
        super().__init__(rule.name)
        self.rule = rule
        self.passed = passed


@dataclass(frozen=True, slots=True)
class _Match:
    start: int  # in the raw text
    end: int
    rule: Rule


class Patterns:
    """The rules that apply to one text."""

    def __init__(self, rules: Sequence[Rule], *, match_seconds: float) -> None:
        """`match_seconds`: the longest that one search of one rule may take."""
        self.rules = tuple(rules)
        self.match_seconds = match_seconds
        self._opener = compile_opener(self.rules) if self.rules else None

    def whole(self, text: str) -> Passed:
        """A text as it may pass. Raises PatternRefusalError, TimeoutError."""
        return self.stream().take(text, last=True)

    def stream(self) -> PatternStream:
        """A review of one text that comes in pieces."""
        return PatternStream(self)

    def open_from(self, scanned: str, start: int, seconds: float) -> int:
        """The first place at or after `start` where a match may depend on what follows the text."""
        found = self._opener.search(scanned, start, partial=True, timeout=seconds) if self._opener else None
        return len(scanned) if found is None else int(found.start())


class PatternStream:
    """Holds back what may still turn out to be matched, and no more."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._text = FoldedText()

    @property
    def held(self) -> str:
        """What came and has not gone out."""
        return self._text.raw

    def take(self, text: str, *, last: bool = False, match_seconds: float | None = None) -> Passed:
        """Add a piece; returns what may go out now. Raises PatternRefusalError, TimeoutError.

        `match_seconds` instead of the usual. After a TimeoutError the piece is part of what is held.
        """
        seconds = self._patterns.match_seconds if match_seconds is None else match_seconds
        buffer = self._text
        buffer.add(text)
        before = len(buffer.before)
        scanned = buffer.before + buffer.folded
        until = len(scanned) if last else self._patterns.open_from(scanned, before, seconds)
        matches = sorted(
            self._matches(scanned, before, until, seconds), key=lambda match: (match.start, -match.end)
        )
        border = len(buffer.raw) if until == len(scanned) else buffer.raw_start(until - before)
        moved = True
        while moved:  # a span of matches is let go as one or not at all
            moved = False
            for match in matches:
                if match.start < border < match.end:
                    border, moved = match.start, True
        return self._let_go(border, [match for match in matches if match.end <= border], matches)

    def _matches(self, scanned: str, before: int, until: int, seconds: float) -> list[_Match]:
        found: list[_Match] = []
        for rule in self._patterns.rules:
            for match in rule.pattern.finditer(scanned, before, timeout=seconds):
                if match.start() >= until:
                    break
                start = self._text.raw_start(match.start() - before)
                found.append(_Match(start, self._text.raw_end(match.end() - before), rule))
        return found

    def _let_go(self, border: int, done: list[_Match], matches: list[_Match]) -> Passed:
        raw = self._text.raw
        refusing = next((match for match in matches if match.rule.action == "refuse"), None)
        limit = border if refusing is None else min(border, refusing.start)
        parts: list[str] = []
        place = 0
        rules: dict[str, Rule] = {}
        for match in done:
            if match.start >= limit and refusing is not None:
                break
            rules.setdefault(match.rule.name, match.rule)
            if match.rule.action != "redact":
                continue
            if match.start >= place:
                parts += [raw[place : match.start], match.rule.replacement]
            place = max(place, match.end)
        parts.append(raw[place:limit])
        passed = Passed("".join(parts), tuple(rules.values()))
        if refusing is not None:
            raise PatternRefusalError(refusing.rule, passed)
        self._text.cut(border)
        return passed
