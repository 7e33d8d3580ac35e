"""Runs vLLM on a folder made by `tiny_llama`, with shorter paths and without; prints both answers as one JSON line.

Started by `test_engine_paths` as a process: `python -m tests.serve.engine.cpu.shorter_paths FOLDER DTYPE`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ADAPTERS = {"plain": 1, "with_lm_head": 2}
SHORT_PROMPT = [5, 7, 9, 11, 13]


def main(folder: Path, dtype: str) -> dict[str, object]:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    from serve.engine.cpu import layer_paths

    llm = LLM(
        str(folder / "base"),
        dtype=dtype,
        skip_tokenizer_init=True,
        enable_lora=True,
        max_loras=len(ADAPTERS),
        max_lora_rank=8,
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=8,
        max_num_batched_tokens=64,
        enable_prefix_caching=False,
    )
    adapters = [None, *(LoRARequest(n, i, str(folder / n)) for n, i in ADAPTERS.items())]

    def answers() -> list[object]:
        """Short prompts and one of several chunks, mixed with adapters, then three of the base model alone."""
        prompts = [*(SHORT_PROMPT[:n] for n in (2, 3, 4)), list(range(10, 110)), SHORT_PROMPT, [8]]
        return [*asked(prompts, adapters * 2), *asked(prompts[:3], [None] * 3)]

    def asked(prompts: list[list[int]], requests: list[LoRARequest | None]) -> list[object]:
        """Tokens and logprobs of each answer."""
        sampling = SamplingParams(temperature=0, max_tokens=24, logprobs=0, detokenize=False, ignore_eos=True)
        outputs = llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            sampling,
            lora_request=requests,
            use_tqdm=False,
        )
        return [
            {
                "tokens": list(output.outputs[0].token_ids),
                "logprobs": [next(iter(entry.values())).logprob for entry in output.outputs[0].logprobs],
            }
            for output in outputs
        ]

    def shortened(worker: object) -> dict[str, int]:
        counts: dict[str, int] = {}
        for module in worker.get_model().modules():  # type: ignore[attr-defined]
            if "forward" in module.__dict__:
                counts[type(module).__name__] = counts.get(type(module).__name__, 0) + 1
        return counts

    found: dict[str, object] = {"shortened": llm.collective_rpc(shortened)[0], "short": answers()}
    llm.collective_rpc(lambda worker: layer_paths.restore(worker.get_model()))
    found["left"] = llm.collective_rpc(shortened)[0]
    found["long"] = answers()
    return found


if __name__ == "__main__":
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])), flush=True)
