"""What a way to adapt a base is, and a base made ready for training by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Method:
    """One way to adapt a base, without anything loaded.

    `build(model, settings)` returns the model with what is to be trained, alone, requiring gradients.
    """

    name: str
    summary: str
    learning_rate: float  # default peak for AdamW
    build: Callable[[Any, TrainSettings], Any]
    why_not: str | None = None  # why the gateway cannot serve it; None where it can
    packable: bool = True  # False where virtual tokens stand before every row
    changes_base: bool = (
        False  # the initialisation takes the adapter's first product out of the base's weights
    )
    prompt_learning: bool = False
    create_optimizer: Callable[..., Any] | None = None  # (model, optimizer_class, settings, options)
    extra_loss: Callable[[Any], Any] | None = None  # of the model, added to every step's loss

    @property
    def servable(self) -> bool:
        """Whether the export makes an adapter of it that the gateway serves."""
        return self.why_not is None


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A base made ready for training.

    `initial_adapter_folder` holds the adapter as it was before the first step, where the initialisation changed
    the base's weights: PEFT's `path_initial_model_for_weight_conversion`.
    """

    model: Any
    initial_adapter_folder: Path | None
    method: str


def prepare_model(model: Any, method: Method, settings: TrainSettings, *, folder: Path) -> PreparedModel:
    """Put `method` on `model`. Same seed and base, same initial values. `folder` takes an initial adapter."""
    from transformers import set_seed

    set_seed(settings.seed)
    adapted = method.build(model, settings)
    adapted.config.use_cache = False
    if not method.changes_base:
        return PreparedModel(adapted, None, method.name)
    initial = folder / "initial_adapter"
    _save_initial(adapted, initial)
    return PreparedModel(adapted, initial, method.name)


def _save_initial(model: Any, folder: Path) -> None:
    config = model.peft_config["default"]
    initialisation = config.init_lora_weights
    # PEFT asks for True here: it would otherwise take the product out of the base a second time when it loads this.
    config.init_lora_weights = True
    try:
        model.save_pretrained(folder)
    finally:
        config.init_lora_weights = initialisation
