"""`python -m tests.serve.live.score_both_ways BASE ADAPTER`: logprobs of the same tokens from one prefill and token
by token, alone and beside requests that ask for logprobs of their own; prints them as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from serve.engine.protocol import AdapterHandle, EngineRequest, Sampling
from serve.engine.vllm.engine import VllmEngine
from tests.serve.live.small_engine import small_engine

PROMPT = list(range(20, 60))
CONTINUATION = [7, 300, 12, 12, 45, 500, 9, 100]


async def main(base: str, adapter: Path) -> dict[str, Any]:
    engine = small_engine(base, width=8, adapters=2)
    await engine.start()
    try:
        handle = AdapterHandle("risk@3f2a91c0", 1, adapter)
        await engine.load_adapter(handle)
        found: dict[str, Any] = {"scores_prompts": engine._scores_prompts}
        for name, who in (("base", None), ("adapter", handle)):
            found[f"{name} alone"] = await engine.score(PROMPT, CONTINUATION, who)
            engine._scores_prompts = not engine._scores_prompts
            found[f"{name} by token"] = await engine.score(PROMPT, CONTINUATION, who)
            beside, answer = await asyncio.gather(
                engine.score(PROMPT, CONTINUATION, who), _answer(engine, handle)
            )
            found[f"{name} by token beside another"] = beside
            engine._scores_prompts = not engine._scores_prompts
            beside, again = await asyncio.gather(
                engine.score(PROMPT, CONTINUATION, who), _answer(engine, handle)
            )
            found[f"{name} beside another"] = beside
            found[f"{name}: the other"] = [answer, again, await _answer(engine, handle)]
        return found
    finally:
        await engine.stop()


async def _answer(engine: VllmEngine, adapter: AdapterHandle) -> list[tuple[int, float, int]]:
    """(token, logprob, how many rivals) of an answer with logprobs."""
    sampling = Sampling(max_tokens=12, temperature=0.0, logprobs=3, ignore_eos=True)
    request = EngineRequest(f"answer-{id(object())}", PROMPT[::-1], sampling, adapter)
    tokens = []
    async for output in engine.generate(request):
        for delta in output.deltas:
            tokens += [(t.token_id, t.logprob, len(t.top)) for t in delta.logprobs]
    return tokens


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2])))))
