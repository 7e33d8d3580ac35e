"""Runs vLLM on a folder made by `tiny_llama`; prints, as one JSON line, logprobs that mixing must not move.

Started by `test_engine_isolation` as a process: `python -m tests.serve.engine.cpu.mixed_batch FOLDER`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

PROMPT = [5, 7, 9, 11, 13]
ADAPTERS = {"plain": 1, "with_lm_head": 2}  # name: id; the one on lm_head takes the last slot
NEWCOMER = "newcomer"


def logprobs_of(output) -> list[float]:
    return [next(iter(entry.values())).logprob for entry in output.outputs[0].logprobs]


def prompt_logprobs_of(output) -> list[float]:
    return [next(iter(entry.values())).logprob for entry in output.prompt_logprobs[1:]]


def main(folder: Path) -> dict[str, object]:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    llm = LLM(
        str(folder / "base"),
        dtype="float32",
        skip_tokenizer_init=True,
        enable_lora=True,
        max_loras=len(ADAPTERS),
        max_lora_rank=8,
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=8,
        enable_prefix_caching=False,
    )
    requests = {name: LoRARequest(name, number, str(folder / name)) for name, number in ADAPTERS.items()}

    def generate(names: list[str | None], **fields: int):
        sampling = SamplingParams(
            temperature=0, max_tokens=4, logprobs=0, detokenize=False, ignore_eos=True, **fields
        )
        prompts = [{"prompt_token_ids": PROMPT} for _ in names]
        adapters = [requests[name] if name else None for name in names]
        return llm.generate(prompts, sampling, lora_request=adapters, use_tqdm=False)

    everyone = [None, *ADAPTERS]
    newcomer = LoRARequest(NEWCOMER, len(ADAPTERS) + 1, str(folder / NEWCOMER))
    found: dict[str, object] = {"base_before_adapters": logprobs_of(generate([None])[0])}
    found["prompt_before_adapters"] = prompt_logprobs_of(generate([None], prompt_logprobs=0)[0])
    found["alone"] = [logprobs_of(generate([name])[0]) for name in ADAPTERS]
    found["prompt_alone"] = [prompt_logprobs_of(generate([n], prompt_logprobs=0)[0]) for n in ADAPTERS]
    found["base_after_adapters"] = logprobs_of(generate([None])[0])
    found["mixed"] = [logprobs_of(output) for output in generate(everyone)]
    # A third adapter for two slots takes the oldest one's; then one comes back under an id used before.
    requests[NEWCOMER] = newcomer
    found["swapped"] = [logprobs_of(generate([name])[0]) for name in (NEWCOMER, *ADAPTERS)]
    llm.llm_engine.remove_lora(ADAPTERS["plain"])
    requests["plain"] = LoRARequest("renewed", ADAPTERS["plain"], str(folder / NEWCOMER))
    found["renewed"] = logprobs_of(generate(["plain"])[0])
    # Last, because this is where vLLM by itself breaks down.
    requests["plain"] = LoRARequest("plain_again", len(ADAPTERS) + 2, str(folder / "plain"))
    try:
        mixed = generate(everyone, prompt_logprobs=0)
    except RuntimeError as error:
        found["prompt_mixed_error"] = str(error)
    else:
        found["prompt_mixed"] = [prompt_logprobs_of(output) for output in mixed]
    return found


if __name__ == "__main__":
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
