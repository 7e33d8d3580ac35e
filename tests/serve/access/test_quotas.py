"""What a key may take: counted exactly, given back exactly once, and told in OpenAI's headers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve.access.caller import ANYONE, Caller, KeyLimits
from serve.access.quotas import Allowance, Quotas
from serve.errors import InvalidRequestError, QueueFullError, RateLimitedError


class Clock:
    """Stands still until it is moved."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quotas(clock: Clock) -> Quotas:
    return Quotas(clock)


def key(key_id: str = "1", **limits: Any) -> Caller:
    return Caller(f"key:{key_id}", tenant="acme", key_id=key_id, limits=KeyLimits(**limits))


def test_requests_per_minute(quotas: Quotas, clock: Clock) -> None:
    caller = key(requests_per_minute=2)
    for left in ("1", "0"):
        with quotas.admit(caller) as allowance:
            assert allowance.headers["x-ratelimit-limit-requests"] == "2"
            assert allowance.headers["x-ratelimit-remaining-requests"] == left
    for _ in range(10):  # asking in vain costs nothing
        with pytest.raises(RateLimitedError, match="2 requests per minute") as refused, quotas.admit(caller):
            pass
    assert refused.value.retry_after_seconds == 30
    assert refused.value.headers == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }
    with quotas.admit(key("2", requests_per_minute=2)):
        pass
    clock.seconds = 29.9
    with pytest.raises(RateLimitedError) as refused, quotas.admit(caller):
        pass
    assert refused.value.retry_after_seconds == 1
    clock.seconds = 30
    with quotas.admit(caller) as allowance:
        assert allowance.headers["x-ratelimit-reset-requests"] == "1m0s"
    clock.seconds = 89.95
    with pytest.raises(ZeroDivisionError), quotas.admit(caller):
        raise ZeroDivisionError
    for per_minute, shown in ((1000, "60ms"), (8, "7.5s"), (1, "1m0s")):
        with quotas.admit(key(f"of {per_minute}", requests_per_minute=per_minute)) as allowance:
            assert allowance.headers["x-ratelimit-reset-requests"] == shown


def test_tokens_are_reserved_and_what_was_not_used_comes_back_once(quotas: Quotas) -> None:
    caller = key(tokens_per_minute=100)
    with quotas.admit(caller) as allowance:
        allowance.reserve(20, 60)
        assert allowance.headers["x-ratelimit-remaining-tokens"] == "20"
        with quotas.admit(caller) as second:
            with pytest.raises(RateLimitedError, match="100 tokens per minute") as refused:
                second.reserve(10, 20)
            assert refused.value.retry_after_seconds == 6
            second.reserve(10, 10)
        allowance.settle(5)
        allowance.settle(0)
    with quotas.admit(caller) as third:
        # 25 of the first; the second never settled, because it failed: its prompt alone counts.
        assert third.headers["x-ratelimit-remaining-tokens"] == "65"


def test_a_prompt_that_was_estimated_is_counted_as_it_was(quotas: Quotas) -> None:
    caller = key(tokens_per_minute=100)
    with quotas.admit(caller) as allowance:
        allowance.reserve(10, 20)
        allowance.settle(5, prompt_tokens=30)
        assert allowance.headers["x-ratelimit-remaining-tokens"] == "65"


def test_a_request_that_can_never_fit_is_refused_for_good(quotas: Quotas) -> None:
    with quotas.admit(key(tokens_per_minute=100)) as allowance:
        with pytest.raises(InvalidRequestError, match=r"100 tokens per minute.*101") as refused:
            allowance.reserve(50, 51)
        assert refused.value.param == "max_tokens"
        allowance.reserve(30, 30)
        with pytest.raises(InvalidRequestError):  # several prompts of one request
            allowance.reserve(30, 30)


def test_a_request_that_the_queue_refuses_costs_nothing(quotas: Quotas) -> None:
    caller = key(requests_per_minute=10, tokens_per_minute=100)
    with pytest.raises(QueueFullError), quotas.admit(caller) as allowance:
        allowance.reserve(20, 20)
        try:
            raise QueueFullError("full", retry_after_seconds=1)
        finally:
            allowance.settle(0)
    with quotas.admit(caller) as allowance:
        assert allowance.headers["x-ratelimit-remaining-requests"] == "9"
        assert allowance.headers["x-ratelimit-remaining-tokens"] == "100"


def test_requests_at_once(quotas: Quotas) -> None:
    caller = key(concurrency=2, requests_per_minute=100)
    with quotas.admit(caller), quotas.admit(caller):
        with pytest.raises(RateLimitedError, match="2 requests at once") as refused, quotas.admit(caller):
            pass
        assert refused.value.retry_after_seconds == 1
    with quotas.admit(caller) as allowance:
        assert allowance.headers["x-ratelimit-remaining-requests"] == "97"


@pytest.mark.parametrize("caller", [ANYONE, Caller("admin", admin=True), key(), key(max_tokens=5)])
def test_without_limits_nothing_is_counted(quotas: Quotas, caller: Caller) -> None:
    with quotas.admit(caller) as allowance:
        allowance.reserve(10**9, 10**9)
        allowance.settle(3)
        assert allowance.headers == {}
    assert len(quotas) == 0


def test_keys_that_took_nothing_for_a_minute_are_forgotten(quotas: Quotas, clock: Clock) -> None:
    for number in range(5000):
        clock.seconds = number
        with quotas.admit(key(str(number), requests_per_minute=1)):
            pass
    assert len(quotas) <= 256


class Takers(RuleBasedStateMachine):
    """One key's requests in any order; the model is the list of what counts."""

    @initialize(requests=st.integers(1, 5), tokens=st.integers(10, 60), concurrency=st.integers(1, 4))
    def begin(self, requests: int, tokens: int, concurrency: int) -> None:
        self.clock = Clock()
        self.quotas = Quotas(self.clock)
        self.caller = key(requests_per_minute=requests, tokens_per_minute=tokens, concurrency=concurrency)
        self.limits = self.caller.limits
        self.open: list[tuple[ExitStack, Allowance, dict[str, int]]] = []
        self.requests_left = float(requests)
        self.tokens_left = float(tokens)

    @rule()
    def arrive(self) -> None:
        stack = ExitStack()
        assert self.limits.concurrency is not None
        may = len(self.open) < self.limits.concurrency and self.requests_left >= 1 - 1e-9
        try:
            allowance = stack.enter_context(self.quotas.admit(self.caller))
        except RateLimitedError as error:
            assert not may
            assert error.retry_after_seconds >= 1
            return
        assert may
        self.requests_left -= 1
        self.open.append((stack, allowance, {"prompt": 0, "taken": 0}))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), prompt=st.integers(1, 20), answer=st.integers(1, 20))
    def reserve(self, data: st.DataObject, prompt: int, answer: int) -> None:
        _, allowance, taken = data.draw(st.sampled_from(self.open))
        assert self.limits.tokens_per_minute is not None
        try:
            allowance.reserve(prompt, answer)
        except InvalidRequestError:
            assert taken["taken"] + prompt + answer > self.limits.tokens_per_minute
        except RateLimitedError:
            assert self.tokens_left < prompt + answer + 1e-9
        else:
            assert self.tokens_left > prompt + answer - 1e-9
            self.tokens_left -= prompt + answer
            taken["prompt"] += prompt
            taken["taken"] += prompt + answer

    @precondition(lambda self: self.open)
    @rule(data=st.data(), how=st.sampled_from(["settled", "settled twice", "failed", "refused"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        request = data.draw(st.sampled_from(self.open))
        self.open.remove(request)
        stack, allowance, taken = request
        used = taken["prompt"]
        if how.startswith("settled"):
            completion = data.draw(st.integers(0, taken["taken"] - taken["prompt"]))
            for _ in how.split():
                allowance.settle(completion)
            used += completion
            stack.close()
        else:
            failure = QueueFullError("full", retry_after_seconds=1) if how == "refused" else LookupError()
            with pytest.raises(type(failure)), stack:
                raise failure
        if how == "refused":
            used = 0
            self.requests_left = self._at_most(self.requests_left + 1, self.limits.requests_per_minute)
        self.tokens_left = self._at_most(
            self.tokens_left + taken["taken"] - used, self.limits.tokens_per_minute
        )

    @rule(seconds=st.integers(0, 30))
    def wait(self, seconds: int) -> None:
        self.clock.seconds += seconds
        for name, limit in (
            ("requests_left", self.limits.requests_per_minute),
            ("tokens_left", self.limits.tokens_per_minute),
        ):
            assert limit is not None
            setattr(self, name, self._at_most(getattr(self, name) + seconds * limit / 60, limit))

    @staticmethod
    def _at_most(left: float, limit: int | None) -> float:
        assert limit is not None
        return min(float(limit), left)

    @invariant()
    def the_headers_say_what_is_left(self) -> None:
        for _, allowance, _ in self.open[:1]:
            headers = allowance.headers
            for name, left in (("requests", self.requests_left), ("tokens", self.tokens_left)):
                said = int(headers[f"x-ratelimit-remaining-{name}"])
                assert said in {int(left + 1e-6), int(left - 1e-6)}


TestTakers = Takers.TestCase
TestTakers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
