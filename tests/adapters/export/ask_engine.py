"""Runs vLLM on exported adapters; prints, as one JSON line, its greedy answers to the prompts of the tests.

Started by `test_export_served` as a process: `python -m tests.adapters.export.ask_engine BASE HOME KIND=FOLDER...`
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from serve.engine.protocol import AdapterHandle, EngineRequest, Sampling
from tests.adapters.export.trained_models import PROMPTS

NUM_TOKENS = 16
MAX_RANK = 128


async def answer(engine, adapter: AdapterHandle, number: int, prompt: list[int]):
    request = EngineRequest(
        request_id=f"{adapter.name}-{number}",
        prompt_token_ids=prompt,
        sampling=Sampling(max_tokens=NUM_TOKENS, temperature=0.0, logprobs=1, ignore_eos=True),
        adapter=adapter,
        stream=False,
    )
    tokens, logprobs = [], []
    async for output in engine.generate(request):
        for delta in output.deltas:
            tokens += [item.token_id for item in delta.logprobs]
            logprobs += [item.logprob for item in delta.logprobs]
    return tokens, logprobs


async def main(base: str, home: Path, folders: dict[str, Path]):
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from serve.engine.vllm.engine import VllmEngine
    from serve.engine_setup import engine_wishes
    from serve.settings import ServeSettings

    settings = ServeSettings(
        base=base,
        home=home,
        dtype="float32",
        kv_cache_gib=0.25,
        max_loras=4,
        max_cpu_loras=len(folders),
        max_lora_rank=MAX_RANK,
        structured_outputs=False,
    )
    resolved = resolve_base(base, home=home, progress=lambda _: None)
    engine = VllmEngine(engine_wishes(settings, resolved, read_passport(resolved, home=home)))
    await engine.start()
    try:
        found = {}
        for number, (kind, folder) in enumerate(folders.items(), 1):
            adapter = AdapterHandle(kind, number, folder)
            await engine.load_adapter(adapter)
            found[kind] = await asyncio.gather(
                *(answer(engine, adapter, place, prompt) for place, prompt in enumerate(PROMPTS))
            )
        return found
    finally:
        await engine.stop()


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[3:])
    folders = {kind: Path(folder) for kind, folder in named.items()}
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), folders))), flush=True)
