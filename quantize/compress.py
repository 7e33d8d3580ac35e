"""llm-compressor on a model in memory: its failures as one message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bases.progress import Progress
from bases.resolve import ResolvedBase
from quantize.errors import CompressorError
from quantize.plan import QuantisationPlan
from quantize.recipe import ResolvedRecipe
from quantize.resume import KeptLayers
from quantize.stored import round_unquantised

# Tokens that go through a layer at once: enough to keep the processor busy, few enough for its caches.
_BATCH_TOKENS = 2048


def compress(
    base: ResolvedBase,
    recipe: ResolvedRecipe,
    plan: QuantisationPlan,
    rows: Sequence[Sequence[int]],
    *,
    store_dtype: str,
    kept: KeptLayers | None,
    say: Progress,
) -> tuple[Any, tuple[str, ...]]:
    """(the base in float32 with its layers rounded and scales beside them, what is worth knowing).

    `rows` are token ids, all of one length; they may be empty where the plan has no calibrated pass. Raises
    CompressorError. Draws bars and logs unless called within `quiet_compressor`.
    """
    import torch
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    from quantize.pipeline import PIPELINE_NAME, PassContext, passes_with

    say(f"Loading {base.name}")
    try:
        model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32, local_files_only=True)
    except (ValueError, RuntimeError, OSError) as error:
        raise CompressorError(f"{base.name} cannot be loaded: {error}") from error
    model.eval()
    model.requires_grad_(False)
    round_unquantised(model, plan, store_dtype)
    modifiers = recipe.modifiers()
    context = PassContext(say, kept, lambda changed: round_unquantised(changed, plan, store_dtype))
    try:
        with passes_with(context):
            oneshot(
                model=model,
                tokenizer=str(base.path),
                recipe=modifiers,
                dataset=_loader(rows) if plan.calibrated_passes else None,
                pipeline=PIPELINE_NAME,
            )
    # llm-compressor raises whatever its code runs into, bare Exception among it.
    except Exception as error:
        raise CompressorError(
            f"llm-compressor failed on {base.name} with {recipe.name} ({type(error).__name__}: {error}). "
            "Nothing was written."
        ) from error
    fallen = [name for modifier in modifiers for name in getattr(modifier, "_rtn_fallback_module_names", ())]
    if not fallen:
        return model, ()
    return model, (
        f"GPTQ could not invert the second moments of {len(fallen)} layers ({fallen[0]}, ...) and rounded them "
        "to the nearest value: more calibration text would help",
    )


def _loader(rows: Sequence[Sequence[int]]) -> Any:
    import torch

    def collate(batch: list[Any]) -> dict[str, Any]:
        ids = torch.stack(batch)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return torch.utils.data.DataLoader(
        [torch.tensor(list(row)) for row in rows],
        batch_size=max(1, _BATCH_TOKENS // len(rows[0])),
        collate_fn=collate,
    )
