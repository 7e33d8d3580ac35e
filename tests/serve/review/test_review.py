"""Reviewers in turn: what they let through, what they leave in audit log and metrics, and what if one fails."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.registry.records import Event
from serve.errors import ReviewFailedError, ReviewRefusedError
from serve.observability.metrics import GatewayMetrics
from serve.review.callable_reviewer import CallableReviewer
from serve.review.pattern_reviewer import PatternReviewer
from serve.review.review import Reviewer, ReviewLimits
from serve.review.rules import read_rules
from serve.review.subject import Subject
from serve.review.threads import ReviewThreads
from serve.review.verdict import Flag, Redact, Refuse

SUBJECT = Subject("req-1", "/generate", "key:4f1c09ab", "bank", "risk", "risk@3f2a91c0")
RULES = """
[[rule]]
name = "accounts"
action = "redact"
applies_to = ["answer"]
regexes = ['\\b\\d{8}\\b']
replacement = "[account]"

[[rule]]
name = "advice"
action = "refuse"
applies_to = ["prompt", "answer"]
phrases = ["sure win"]
message = "No advice here."

[[rule]]
name = "tone"
action = "flag"
applies_to = ["answer"]
adapters = ["risk"]
words = ["dear"]
"""


class Desk:
    """A Reviewer, and what it wrote down."""

    def __init__(self, *reviewers: Any, seconds: float = 5.0, fail_open: bool = False) -> None:
        self.metrics = GatewayMetrics()
        self.events: list[Event] = []
        self.review = Reviewer(
            reviewers,
            ReviewLimits(seconds=seconds, fail_open=fail_open),
            metrics=self.metrics,
            note=self.events.append,
        )

    def said(self) -> list[tuple[str, object, object]]:
        return [(event.outcome, event.detail["reviewer"], event.detail["rule"]) for event in self.events]

    def counted(self) -> dict[tuple[str, str, str], float]:
        return {
            (sample.labels["reviewer"], sample.labels["stage"], sample.labels["outcome"]): sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "hotswap_reviews_total"
        }


def own(function: Callable[..., Any], name: str = "own") -> CallableReviewer:
    return CallableReviewer(name, function, threads=ReviewThreads(2))


@pytest.fixture
def shipped(tmp_path: Path) -> PatternReviewer:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return PatternReviewer("patterns", read_rules(path), threads=ReviewThreads(), seconds=1.0)


async def streamed(desk: Desk, *pieces: str) -> str:
    stream = desk.review.stream(SUBJECT)
    sent = [await stream.feed(piece) for piece in pieces]
    return "".join(sent) + await stream.finish()


async def test_nobody_looks_at_nothing() -> None:
    desk = Desk()
    assert not desk.review.active
    assert not desk.review.reads("answer", SUBJECT)
    await desk.review.prompt(SUBJECT, ["a"])
    assert await desk.review.answer(SUBJECT, "a") == "a"
    assert await streamed(desk, "a", "b") == "ab"


async def test_the_shipped_policy_redacts_whole_answers_and_streams_alike(shipped: PatternReviewer) -> None:
    text = "Dear client, account 12345678 is open."
    for whole in (True, False):
        desk = Desk(shipped)
        sent = await desk.review.answer(SUBJECT, text) if whole else await streamed(desk, *text)
        assert sent == "Dear client, account [account] is open."
        assert sorted(desk.said()) == [
            ("flagged", "patterns", "tone"),
            ("redacted", "patterns", "accounts"),
        ]
        assert desk.counted() == {("patterns", "answer", "redacted"): 1}


async def test_an_event_says_who_and_what_and_never_the_text(shipped: PatternReviewer) -> None:
    desk = Desk(shipped)
    text = "is this a sure win"
    with pytest.raises(ReviewRefusedError, match=r"No advice here\."):
        await desk.review.prompt(SUBJECT, ["is this", "a sure win"])
    (event,) = desk.events
    assert (event.actor, event.action, event.outcome, event.name) == (
        "key:4f1c09ab",
        "review",
        "refused",
        "risk",
    )
    assert event.detail == {
        "reviewer": "patterns",
        "rule": "advice",
        "stage": "prompt",
        "sha256": hashlib.sha256(b"is this\na sure win").hexdigest(),
        "request_id": "req-1",
        "route": "/generate",
        "version": "risk@3f2a91c0",
    }
    assert text not in repr(event)
    assert desk.counted() == {("patterns", "prompt", "refused"): 1}


async def test_a_phrase_over_two_parts_of_a_prompt_is_found(shipped: PatternReviewer) -> None:
    with pytest.raises(ReviewRefusedError):
        await Desk(shipped).review.prompt(SUBJECT, ["a sure", "win"])


async def test_a_stream_is_refused_before_the_phrase_is_out(shipped: PatternReviewer) -> None:
    stream = Desk(shipped).review.stream(SUBJECT)
    assert await stream.feed("It is a sure") == "It is a "
    assert await stream.feed(" win") == ""
    with pytest.raises(ReviewRefusedError):
        await stream.feed("! ")


async def test_rules_of_one_adapter_leave_others_alone(shipped: PatternReviewer, tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(RULES.split("[[rule]]")[-1].join(["[[rule]]", ""]))
    reviewer = PatternReviewer("one", read_rules(path), threads=ReviewThreads(), seconds=1.0)
    base = Subject("req-2", "/generate", "local", "", None, None)
    assert reviewer.reads("answer", SUBJECT)
    assert not reviewer.reads("answer", base)
    assert not reviewer.reads("prompt", SUBJECT)


async def test_each_reads_what_the_one_before_let_through(shipped: PatternReviewer) -> None:
    read: list[str] = []

    def mine(stage: str, text: str, subject: Subject) -> Any:
        read.append(text)
        return [Redact("upper", text.upper()), Flag("seen")]

    desk = Desk(shipped, own(mine))
    assert await desk.review.answer(SUBJECT, "no 12345678") == "NO [ACCOUNT]"
    assert await streamed(desk, "no 1234", "5678") == "NO [ACCOUNT]"
    assert read == ["no [account]", "no [account]"]
    assert ("flagged", "own", "seen") in desk.said()


async def test_a_function_runs_in_a_thread_and_a_coroutine_function_on_the_loop() -> None:
    places: list[bool] = []

    def in_thread(stage: str, text: str, subject: Subject) -> None:
        places.append(threading.current_thread() is threading.main_thread())

    async def on_loop(stage: str, text: str, subject: Subject) -> Refuse:
        places.append(threading.current_thread() is threading.main_thread())
        return Refuse("never", "Not today.")

    desk = Desk(own(in_thread, "a"), own(on_loop, "b"))
    with pytest.raises(ReviewRefusedError, match=r"Not today\."):
        await desk.review.answer(SUBJECT, "text")
    assert places == [False, True]


def raises(stage: str, text: str, subject: Subject) -> None:
    raise LookupError(text)


def answers_nonsense(stage: str, text: str, subject: Subject) -> Any:
    return "fine"


def redacts_prompts(stage: str, text: str, subject: Subject) -> Redact:
    return Redact("r", "x")


async def hangs(stage: str, text: str, subject: Subject) -> None:
    await asyncio.Event().wait()


def stops(stage: str, text: str, subject: Subject) -> None:
    raise StopIteration


@pytest.mark.parametrize("function", [raises, answers_nonsense, redacts_prompts, hangs, stops])
async def test_a_reviewer_that_fails_lets_nothing_through_or_all(
    function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    closed = Desk(own(function), seconds=0.05)
    with pytest.raises(ReviewFailedError):
        await closed.review.prompt(SUBJECT, ["my secret"])
    opened = Desk(own(function), seconds=0.05, fail_open=True)
    await opened.review.prompt(SUBJECT, ["my secret"])
    for desk in (closed, opened):
        assert desk.said() == [("failed", "own", "failure")]
        assert desk.counted() == {("own", "prompt", "failed"): 1}
    assert "secret" not in caplog.text


async def test_a_stream_goes_on_without_a_reviewer_that_failed_where_that_is_allowed() -> None:
    desk = Desk(own(raises), fail_open=True)
    assert await streamed(desk, "one ", "two ", "three") == "one two three"
    closed = Desk(own(raises)).review.stream(SUBJECT)
    assert await closed.feed("one") == ""
    with pytest.raises(ReviewFailedError):
        await closed.finish()


async def test_reviewers_that_hang_do_not_stop_the_loop_nor_take_more_threads_than_there_are() -> None:
    ended = threading.Event()
    started = 0

    def waits(stage: str, text: str, subject: Subject) -> None:
        nonlocal started
        started += 1
        ended.wait(30)

    desk = Desk(own(waits), seconds=0.05)
    try:
        looks = [desk.review.answer(SUBJECT, "text") for _ in range(6)]
        results = await asyncio.gather(*looks, return_exceptions=True)
        assert [type(result) for result in results] == [ReviewFailedError] * 6
        assert started == 2
    finally:
        ended.set()


async def test_a_slow_expression_is_given_up_in_time(tmp_path: Path) -> None:
    path = tmp_path / "slow.toml"
    path.write_text(
        "[[rule]]\nname = 'slow'\naction = 'flag'\napplies_to = ['answer']\nregexes = ['(?:a|aa){1,60}!']\n"
    )
    reviewer = PatternReviewer("patterns", read_rules(path), threads=ReviewThreads(), seconds=0.1)
    desk = Desk(reviewer, seconds=5.0, fail_open=True)
    text = "a" * 100 + "?"
    assert await desk.review.answer(SUBJECT, text) == text
    assert await streamed(desk, text, " more", " and more") == text + " more and more"
    assert desk.counted() == {("patterns", "answer", "failed"): 2}


async def test_a_reviewer_of_prompts_alone_holds_no_stream_back() -> None:
    def mine(stage: str, text: str, subject: Subject) -> None: ...

    mine.stages = ("prompt",)  # type: ignore[attr-defined]
    desk = Desk(own(mine))
    assert desk.review.reads("prompt", SUBJECT)
    assert not desk.review.reads("answer", SUBJECT)
    assert await desk.review.stream(SUBJECT).feed("a") == "a"
