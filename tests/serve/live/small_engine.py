"""vLLM's engine as the gateway makes it, on a base of a test's own and without a gateway."""

from __future__ import annotations

from serve.engine.vllm.arguments import EngineWishes
from serve.engine.vllm.engine import VllmEngine


def small_engine(base: str, *, width: int, adapters: int) -> VllmEngine:
    """Not started yet; at most `width` requests run at once, and `adapters` are in memory."""
    return VllmEngine(
        EngineWishes(
            model_path=base,
            model_name="base",
            context_tokens=512,
            kv_values_per_token=512,
            dtype="float32",
            max_model_len=None,
            kv_cache_gib=0.1,
            max_num_seqs=width,
            max_loras=adapters,
            max_cpu_loras=adapters,
            max_lora_rank=8,
            cpu_patches="auto",
            reasoning_parser=None,
            tool_parser=None,
            trust_remote_code=False,
            structured_outputs=False,
            extra=(),
        )
    )
