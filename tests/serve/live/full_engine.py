"""`python -m tests.serve.live.full_engine BASE`: who is next in an engine that is full, a request that waits or the
gateway's own; prints the order in which they ended, and tokens of a request that was watched, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from serve.engine.protocol import EngineRequest, Sampling
from tests.serve.live.small_engine import small_engine

WIDTH = 2
LONG, SHORT = 300, 4


async def main(base: str) -> dict[str, Any]:
    engine = small_engine(base, width=WIDTH, adapters=1)
    await engine.start()
    ended: list[str] = []

    async def ask(name: str, num_tokens: int, begun: asyncio.Event | None = None, n: int = 1) -> None:
        sampling = Sampling(n=n, max_tokens=num_tokens, temperature=1.0 if n > 1 else 0.0, ignore_eos=True)
        request = EngineRequest(f"req-{name}", list(range(20, 40)), sampling, stream=begun is not None)
        async for _ in engine.generate(request):
            if begun is not None:
                begun.set()
        ended.append(name)

    async def score() -> None:
        await engine.score([5], list(range(100, 110)), None)
        ended.append("probe")

    try:
        begun = [asyncio.Event() for _ in range(WIDTH)]
        running = [
            asyncio.create_task(ask(f"long-{place}", LONG + 20 * place, begun[place]))
            for place in range(WIDTH)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        waiting = [asyncio.create_task(ask(f"waiting-{place}", SHORT)) for place in range(3 * WIDTH)]
        await asyncio.sleep(0)
        probe = asyncio.create_task(score())
        await asyncio.gather(*running, *waiting, probe)
        order = list(ended)
        watched = asyncio.create_task(ask("watched", LONG, n=2))
        while not watched.done() and engine.generated_tokens("req-watched") < LONG:
            await asyncio.sleep(0.001)
        seen = engine.generated_tokens("req-watched")
        watched.cancel()
        await asyncio.gather(watched, return_exceptions=True)
        return {"order": order, "seen": seen, "after": engine.generated_tokens("req-watched")}
    finally:
        await engine.stop()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
