"""LoftQ: the base is rounded to 4 bits, A and B start as its error. Li et al. 2023, https://arxiv.org/abs/2310.08659.

The rounded base plus the first A and B is near the base, not equal to it: what the adapter then learns to correct
is the rounding as well, so on the unrounded base it is an approximation that the export measures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.training.methods.lora import build_lora
from adapters.training.methods.method import Method

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings

BITS = 4


def build(model: Any, settings: TrainSettings) -> Any:
    """LoRA on the base rounded to 4-bit normal floats, as PEFT does it in plain torch."""
    from peft import LoftQConfig

    return build_lora(
        model, settings, init_lora_weights="loftq", loftq_config=LoftQConfig(loftq_bits=BITS, loftq_iter=1)
    )


METHOD = Method(
    name="loftq",
    summary="LoRA that starts as the error of a 4-bit base",
    learning_rate=2e-4,
    build=build,
    changes_base=True,
)
