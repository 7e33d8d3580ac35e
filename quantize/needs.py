"""How much memory and disk a run will take, estimated from the model's sizes. All in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from bases.architecture import ArchitectureFacts
from quantize.plan import QuantisationPlan

_FLOAT32 = 4
_SCALE = 4
# The libraries themselves, and what allocators keep.
_PROCESS = 600 * 1024**2


@dataclass(frozen=True, slots=True)
class Needs:
    """Estimates, at the peak."""

    memory_bytes: int
    disk_bytes: int
    """Where the base is made."""
    kept_bytes: int
    """In the home: layers kept for going on after an interruption."""


def estimate_needs(
    facts: ArchitectureFacts,
    plan: QuantisationPlan,
    *,
    rows: int,
    row_tokens: int,
    store_bytes: int,
    resume: bool,
) -> Needs:
    """What quantising takes. `store_bytes` is the size of one unquantised number on disk.

    Memory is the larger of two stages: rounding (the model in float32, the states of all rows before and behind a
    layer, GPTQ's second moments and their inverse for one block of layers), and measuring (both models in float32
    and the logits of one row of each).
    """
    model = facts.num_parameters * _FLOAT32
    rounded = sum(layer.inputs * layer.outputs for layer in plan.layers)
    states = 3 * rows * row_tokens * facts.hidden_size * _FLOAT32 if plan.calibrated_passes else 0
    blocks = max(1, facts.num_layers)
    moments = (
        sum(layer.inputs**2 for layer in plan.layers) * _FLOAT32 // blocks if plan.calibrated_passes else 0
    )
    inverse = 3 * plan.widest**2 * _FLOAT32 if plan.calibrated_passes else 0
    rounding = model + states + moments + inverse
    measuring = 2 * model + 6 * row_tokens * facts.vocab_size * _FLOAT32
    stored = sum(
        layer.inputs * layer.outputs * layer.bits // 8
        + layer.outputs * (1 if layer.group_size is None else layer.inputs // layer.group_size) * _SCALE
        for layer in plan.layers
    )
    left = (facts.num_parameters - rounded) * store_bytes
    return Needs(
        memory_bytes=max(rounding, measuring) + _PROCESS,
        disk_bytes=stored + left + 32 * 1024**2,
        kept_bytes=rounded * _FLOAT32 * plan.calibrated_passes if resume else 0,
    )
