"""Loads what somebody trained elsewhere: a PEFT folder of any method, or a fully fine-tuned model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.errors import ExportError
from adapters.export.collect import mutates_base, refuse_unservable
from adapters.export.module_names import plain_name
from adapters.export.plain_lora import read_initial_adapter
from bases.resolve import ResolvedBase

# PEFT takes these out of the base again when it loads, and comes to the same weights each time.
_REPEATABLE_INITIALISATIONS = frozenset({"pissa", "olora"})


def load_trained(folder: Path, *, base: ResolvedBase, initial_adapter_folder: Path | None = None) -> Any:
    """The trained model in `folder` on the CPU in float32, ready for `export_adapter`.

    A folder with adapter_config.json is a PEFT adapter for `base`, one with config.json a whole model. Raises
    NotServableError for methods without a LoRA form, ExportError for what cannot be read.
    """
    if (folder / CONFIG_NAME).is_file():
        return _load_adapter(folder, base, initial_adapter_folder)
    if (folder / "config.json").is_file():
        return _load_whole(folder)
    raise ExportError(
        f"{folder} holds neither {CONFIG_NAME} (an adapter) nor config.json (a model). Give the folder that "
        "save_pretrained wrote, or a trainer's checkpoint-N folder."
    )


def _load_whole(folder: Path) -> Any:
    import torch

    from adapters.training.base_model import quiet_loading

    if not any(folder.glob("*.safetensors")):
        raise ExportError(f"{folder} holds no safetensors. Save the model with save_pretrained(folder).")
    from transformers import AutoModelForCausalLM

    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval()


def _load_adapter(folder: Path, base: ResolvedBase, initial_adapter_folder: Path | None) -> Any:
    import torch
    from peft import PeftConfig, PeftModel

    from adapters.training.base_model import load_training_model

    try:
        config = PeftConfig.from_pretrained(folder)
    except (ValueError, TypeError, KeyError) as error:
        raise ExportError(f"PEFT cannot read {CONFIG_NAME} in {folder}: {error}") from error
    refuse_unservable(config)
    if not (folder / WEIGHTS_NAME).is_file():
        raise ExportError(
            f"There is no {WEIGHTS_NAME} in {folder}. Weights in another form are not opened: "
            "a pickle can run code."
        )
    initialisation = getattr(config, "init_lora_weights", True)
    is_mutated = mutates_base(config)
    if is_mutated and initial_adapter_folder is None and initialisation not in _REPEATABLE_INITIALISATIONS:
        raise ExportError(
            f"init_lora_weights is {initialisation!r}: it changed the base's weights in a way that the "
            "folder alone does not tell. Give the adapter as it was before the first training step with --initial."
        )
    if is_mutated and initial_adapter_folder is not None:
        config.init_lora_weights = True  # what it took out is known: it need not be computed again
    config.inference_mode = True
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        # PEFT 0.21 says so of every AdaLoRA folder, and reads the pattern all the same.
        # An adapted embedding is refused by the export and taken apart by the merge.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")
        try:
            model = PeftModel.from_pretrained(
                load_training_model(base, dtype=torch.float32).model, folder, config=config
            ).eval()
        except (RuntimeError, ValueError, KeyError, UserWarning, ImportError) as error:
            raise ExportError(
                f"PEFT cannot put the adapter in {folder} on the base {base.name}: {str(error)[:400]} "
                "Was it trained on another base?"
            ) from error
    if is_mutated and initial_adapter_folder is not None:
        _take_out(model, initial_adapter_folder)
        model.peft_config[model.active_adapter].init_lora_weights = initialisation
    return model


def _take_out(model: Any, initial_adapter_folder: Path) -> None:
    """Give the base under `model` the weights it was trained on: its own without the initial adapter."""
    import torch
    from peft.tuners.lora.layer import Linear

    initial = read_initial_adapter(initial_adapter_folder)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if not isinstance(layer, Linear):
                continue
            factors = initial.get(plain_name(name))
            if factors is None:
                raise ExportError(f"The initial adapter has no weights for {plain_name(name)}.")
            weight = layer.get_base_layer().weight
            change = factors.dense().to(weight.dtype)
            weight.sub_(change if change.shape == weight.shape else change.T)
