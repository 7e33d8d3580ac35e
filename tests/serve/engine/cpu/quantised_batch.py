"""Runs vLLM on a base and adapters made by `quantised_llama`; prints, as one JSON line, what it answered.

Started by `test_engine_quantised` as a process: `python -m tests.serve.engine.cpu.quantised_batch BASE DTYPE
ADAPTER...`.
"""

from __future__ import annotations

import json
import os
import sys

PROMPTS = [[5, 7, 9, 11, 13], [301, 12, 44], [8, 8, 250, 17, 3, 99, 140], [21], list(range(40, 75))]
MAX_TOKENS = 12


def main(base: str, dtype: str, adapters: list[str]) -> dict[str, object]:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    llm = LLM(
        base,
        dtype=dtype,
        skip_tokenizer_init=True,
        enable_lora=True,
        max_loras=2,
        max_lora_rank=8,
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=16,
        enable_prefix_caching=False,
    )
    requests = {path: LoRARequest(path, number, path) for number, path in enumerate(adapters, 1)}

    def answers(cases: list[tuple[list[int], str]]) -> list[dict[str, object]]:
        sampling = SamplingParams(
            temperature=0, max_tokens=MAX_TOKENS, logprobs=0, detokenize=False, ignore_eos=True
        )
        prompts = [{"prompt_token_ids": prompt} for prompt, _ in cases]
        outputs = llm.generate(
            prompts, sampling, lora_request=[requests.get(path) for _, path in cases], use_tqdm=False
        )
        return [
            {
                "tokens": list(output.outputs[0].token_ids),
                "logprobs": [next(iter(entry.values())).logprob for entry in output.outputs[0].logprobs],
            }
            for output in outputs
        ]

    cases = [(prompt, path) for path in ["", *adapters] for prompt in PROMPTS]
    found: dict[str, object] = {
        "alone": [answers([case])[0] for case in cases[:: len(PROMPTS)]],
        "mixed": answers(cases),
    }
    if os.environ["HOTSWAP_CPU_PATCHES"]:
        found["kernels"] = llm.collective_rpc("linear_kernels")[0]
    return found


if __name__ == "__main__":
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3:])), flush=True)
