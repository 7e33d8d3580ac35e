"""What each key may take of this gateway, counted while it takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serve.access.caller import Caller


class Allowance:
    """What one request takes."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    @property
    def headers(self) -> dict[str, str]:
        """`x-ratelimit-*` headers of the answer; empty for a caller without limits."""
        return {}

    def reserve(self, prompt_tokens: int, max_tokens: int) -> None:
        """Take the tokens of the prompt and the most that the answer may have. Raises RateLimitedError."""

    def settle(self, completion_tokens: int) -> None:
        """Give back what the answer did not use. Called once, however the request ended."""


class Quotas:
    """Counts of one gateway. Belongs to one event loop."""

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[Allowance]:
        """Count one request of the caller for the length of the block. Raises RateLimitedError."""
        yield Allowance(caller)
