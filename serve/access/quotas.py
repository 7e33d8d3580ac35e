"""What each key may take of this gateway, counted while it takes it.

Each gateway process counts for itself: with several replicas a key may take its limits from each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serve.access.buckets import Bucket
from serve.access.caller import Caller, KeyLimits
from serve.errors import BusyError, InvalidRequestError, RateLimitedError

_SECOND_NS = 1_000_000_000
_CONCURRENCY_RETRY_SECONDS = 1  # when one of the key's own requests ends nobody knows
_MIN_SWEEP = 256


@dataclass(slots=True)
class _Count:
    """What one key has taken."""

    limits: KeyLimits
    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    running: int = 0

    def is_idle(self, now_ns: int) -> bool:
        limits = self.limits
        return (
            self.running == 0
            and self.requests.is_empty(limits.requests_per_minute or 1, now_ns)
            and self.tokens.is_empty(limits.tokens_per_minute or 1, now_ns)
        )


class Allowance:
    """What one request takes."""

    def __init__(self, caller: Caller, count: _Count | None, now_ns: Callable[[], int]) -> None:
        self.caller = caller
        self._count = count
        self._now_ns = now_ns
        self._prompt_tokens = 0
        self._taken = 0  # tokens
        self._settled = False
        self._cancelled = False

    @property
    def headers(self) -> dict[str, str]:
        """`x-ratelimit-*` headers of the answer, as of now; empty for a caller without limits."""
        return _headers(self._count, self._now_ns()) if self._count is not None else {}

    def reserve(self, prompt_tokens: int, max_tokens: int) -> None:
        """Take the tokens of the prompt and the most that the answer may have.

        Of a request with several prompts each is reserved by itself. Raises RateLimitedError;
        InvalidRequestError for more tokens than the key may take in a whole minute.
        """
        count = self._count
        limit = self.caller.limits.tokens_per_minute
        if count is None or limit is None:
            return
        wanted = prompt_tokens + max_tokens
        if self._taken + wanted > limit:
            raise InvalidRequestError(
                f"this key may take {limit} tokens per minute, and this request alone up to "
                f"{self._taken + wanted}, prompt and answer; lower max_tokens",
                param="max_tokens",
            )
        now = self._now_ns()
        if not count.tokens.take(wanted, limit, now):
            raise _refusal(
                f"this key may take {limit} tokens per minute; this request needs {wanted}",
                count.tokens.seconds_until(wanted, limit, now),
                count,
                now,
            )
        self._prompt_tokens += prompt_tokens
        self._taken += wanted

    def settle(self, completion_tokens: int, prompt_tokens: int | None = None) -> None:
        """Give back what was reserved and not used, however the request ended. Only the first call counts.

        `prompt_tokens` where they were estimated before and are known now.
        """
        if self._settled or self._cancelled:
            return
        self._settled = True
        if self._count is not None and self._taken:
            used = (self._prompt_tokens if prompt_tokens is None else prompt_tokens) + completion_tokens
            self._count.tokens.put_back(self._taken - used)
            self._taken = used

    def cancel(self) -> None:
        """Give everything back: the request was refused before the engine had it."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._count is not None:
            self._count.tokens.put_back(self._taken)
            self._count.requests.put_back(1)


class Quotas:
    """Counts of one gateway. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, _Count] = {}
        self._sweep_at = _MIN_SWEEP

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[Allowance]:
        """Count one request of the caller for the length of the block.

        A request that is refused as busy, here or in the block, costs the key nothing. Raises RateLimitedError.
        """
        count = self._count_of(caller)
        if count is None:
            yield Allowance(caller, None, self._now_ns)
            return
        self._take(count)
        allowance = Allowance(caller, count, self._now_ns)
        try:
            yield allowance
        except BusyError as error:
            allowance.cancel()
            if isinstance(error, RateLimitedError):
                error.headers = allowance.headers  # with what was just given back
            raise
        finally:
            allowance.settle(0)
            count.running -= 1

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._counts)

    def _now_ns(self) -> int:
        return int(self._clock() * _SECOND_NS)

    def _count_of(self, caller: Caller) -> _Count | None:
        limits = caller.limits
        if caller.key_id is None or limits == KeyLimits(max_tokens=limits.max_tokens):
            return None
        count = self._counts.get(caller.key_id)
        if count is None:
            if len(self._counts) >= self._sweep_at:
                self._sweep()
            count = self._counts[caller.key_id] = _Count(limits)
        count.limits = limits
        return count

    def _sweep(self) -> None:
        now = self._now_ns()
        self._counts = {key: count for key, count in self._counts.items() if not count.is_idle(now)}
        self._sweep_at = max(_MIN_SWEEP, 2 * len(self._counts))

    def _take(self, count: _Count) -> None:
        limits, now = count.limits, self._now_ns()
        if limits.concurrency is not None and count.running >= limits.concurrency:
            raise _refusal(
                f"this key may have {limits.concurrency} requests at once",
                _CONCURRENCY_RETRY_SECONDS,
                count,
                now,
            )
        limit = limits.requests_per_minute
        if limit is not None and not count.requests.take(1, limit, now):
            raise _refusal(
                f"this key may send {limit} requests per minute",
                count.requests.seconds_until(1, limit, now),
                count,
                now,
            )
        count.running += 1


def _refusal(why: str, seconds: float, count: _Count, now_ns: int) -> RateLimitedError:
    retry = max(1, math.ceil(seconds))
    return RateLimitedError(
        f"{why}; try again in {retry} s", retry_after_seconds=retry, headers=_headers(count, now_ns)
    )


def _headers(count: _Count, now_ns: int) -> dict[str, str]:
    """As OpenAI's API has them: the limit per minute, what is left of it, and the time until all is there again."""
    limits, headers = count.limits, {}
    for name, limit, bucket in (
        ("requests", limits.requests_per_minute, count.requests),
        ("tokens", limits.tokens_per_minute, count.tokens),
    ):
        if limit is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(bucket.remaining(limit, now_ns))
            headers[f"x-ratelimit-reset-{name}"] = _duration(bucket.seconds_to_empty(limit, now_ns))
    return headers


def _duration(seconds: float) -> str:
    """`120ms`, `6.5s`, `1m30s`: rounded up, as OpenAI writes it."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    shown = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{shown}s" if minutes else f"{shown}s"
