"""Kills the engine under traffic and verbs, and measures how long it takes until the server is ready again."""

from __future__ import annotations

import asyncio
import time

from tests.contamination.admin import Admin
from tests.contamination.judge import Judge
from tests.contamination.servers import ServerUnderTest

BACK_SECONDS = 240.0
_POLL_SECONDS = 0.02


class Killer:
    """Kills as often as it is told, evenly spread over a round."""

    def __init__(self, server: ServerUnderTest, client: Admin, judge: Judge) -> None:
        self.restart_seconds: list[float] = []
        self._server = server
        self._client = client
        self._judge = judge

    async def run(self, stop: asyncio.Event, seconds: float, num_kills: int) -> None:
        """Returns when the last killed engine has a successor."""
        for _ in range(num_kills):
            try:
                async with asyncio.timeout(seconds / (num_kills + 1)):
                    await stop.wait()
                return
            except TimeoutError:
                await self._kill()

    async def _kill(self) -> None:
        before = await self._restarts()
        started = time.perf_counter()
        with self._judge.history.kill():
            self._server.kill_engine()
            while not await self._is_back(before):
                if time.perf_counter() - started > BACK_SECONDS:
                    self._judge.fault("restart", f"not ready {BACK_SECONDS:g} s after its engine was killed")
                    return
                await asyncio.sleep(_POLL_SECONDS)
        self.restart_seconds.append(time.perf_counter() - started)

    async def _is_back(self, restarts_before: float) -> bool:
        if (await self._client.get("/readyz")).status_code != 200:
            return False
        return await self._restarts() > restarts_before

    async def _restarts(self) -> float:
        lines = (await self._client.get("/metrics")).text.splitlines()
        counts = [line for line in lines if line.startswith("hotswap_engine_restarts_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in counts)
