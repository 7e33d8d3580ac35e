"""The end of a gateway: no new work, what runs finishes in time, and the rest ends with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from serve.errors import RequestAbortedError
from serve.gateway import Gateway, Phase

logger = logging.getLogger("hotswap.gateway")

ABORT_SECONDS = 5.0  # for what was told to end
FLUSH_SECONDS = 5.0  # for the last events, of which a registry that does not answer takes none


async def drain(gateway: Gateway, drain_seconds: float) -> None:
    """Take no new work, let running work finish within the limit, then end it with an error it can see."""
    gateway.phase = Phase.DRAINING
    gateway.admission.drain(retry_after_seconds=max(1, round(drain_seconds)))
    gateway.adapters.refuse()
    gateway.operations.refuse()
    await gateway.shadows.close()
    gateway.engine.finish()
    logger.info("draining: %d requests to finish within %g s", gateway.admission.requests, drain_seconds)
    try:
        async with asyncio.timeout(drain_seconds):
            await gateway.admission.wait_idle()
            await gateway.adapters.wait_quiet()
            await gateway.operations.wait_quiet()
    except TimeoutError:
        cause = RequestAbortedError("the server is shutting down and ended this request at its drain limit")
        count = gateway.running.abort_all(cause)
        logger.warning("drain limit reached: %d requests ended", count)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABORT_SECONDS):
                await gateway.admission.wait_idle()
                await gateway.adapters.wait_quiet()
                await gateway.operations.wait_quiet()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await gateway.events.flush()
    except TimeoutError:
        logger.error("the registry took no more events within %g s", FLUSH_SECONDS)
    gateway.events.end_streams()
    logger.info("drained; the engine is being stopped")
