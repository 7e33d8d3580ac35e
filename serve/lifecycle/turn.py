"""Sees to it that a probe gets its turn in an engine that is never idle.

A probe's requests stand in the engine's own queue, and go ahead of what waits there where the engine schedules by
priority (else they wait for a quarter of a batch, to which the gateway fills that queue). But vLLM also passes
over a request whose adapter finds no slot while others keep all slots busy (`max_loras`), and steady traffic can
do that for ever. So when nothing of a probe was answered for a while, the gateway hands the engine no new
requests: what the engine holds is finite and comes to its end, and the probe is next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from serve.errors import DeadlineExceededError

logger = logging.getLogger("hotswap.adapters")

PATIENCE_SECONDS = 10.0
# Alone with the engine a probe is soon through; one that is not lets others in again after so long.
HOLD_SECONDS = 30.0
LIMIT_SECONDS = 600.0

T = TypeVar("T")


class Turn:
    """The turn of one probe."""

    def __init__(
        self,
        hold: Callable[[], AbstractContextManager[None]],
        *,
        patience_seconds: float | None = None,
        hold_seconds: float = HOLD_SECONDS,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        """`hold` is entered while the engine is to get nothing new; patience None: PATIENCE_SECONDS."""
        self._hold = hold
        self._patience_seconds = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        self._hold_seconds = hold_seconds
        self._limit_seconds = limit_seconds
        self._answers = 0

    def answered(self) -> None:
        """One request of the probe was answered."""
        self._answers += 1

    async def take(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which calls `answered` as it goes on.

        Raises DeadlineExceededError when nothing is answered for `limit_seconds`, and what `work` raises.
        """
        task = asyncio.create_task(work)
        silent_seconds = held_seconds = 0.0
        try:
            with contextlib.ExitStack() as held:
                while True:
                    before, holding = self._answers, held_seconds > 0.0
                    await asyncio.wait({task}, timeout=self._patience_seconds)
                    if task.done():
                        return task.result()
                    silent_seconds += self._patience_seconds
                    held_seconds += self._patience_seconds if holding else 0.0
                    if self._answers != before:
                        silent_seconds = 0.0
                        if held_seconds > self._hold_seconds:
                            held.close()
                            held_seconds = 0.0
                    elif silent_seconds >= self._limit_seconds:
                        raise DeadlineExceededError(
                            f"the engine did not answer the adapter's probe within {self._limit_seconds:g} s"
                        )
                    elif not holding:
                        logger.info(
                            "a probe was not answered for %g s: new requests wait until it is",
                            self._patience_seconds,
                        )
                        held.enter_context(self._hold())
                        held_seconds = self._patience_seconds
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
