"""Writes the two files that PEFT and the engine read: `adapter_config.json` and the tensors."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.export.servable import ServableForm
from adapters.tensor_name import LoraTensorName
from bases.disk import disk_errors


def write_adapter(
    folder: Path, form: ServableForm, *, base_name: str, linear_modules: Collection[str]
) -> None:
    """Write `form` into the existing `folder`. The same form gives the same bytes. Raises OSError."""
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    for module, factors in sorted(form.factors.items()):
        tensors[str(LoraTensorName(module, "A"))] = factors.a.contiguous()
        tensors[str(LoraTensorName(module, "B"))] = factors.b.contiguous()
    with disk_errors():
        save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    config = _config(form, base_name, target_names(form.factors, linear_modules))
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        (folder / name).chmod(0o644)  # safetensors writes 0600


def target_names(modules: Collection[str], linear_modules: Collection[str]) -> list[str]:
    """`target_modules` that mean exactly `modules`: their last parts where those name nothing else of the base."""
    leaves = {module.rpartition(".")[2] for module in modules}
    reached = {name for name in linear_modules if name.rpartition(".")[2] in leaves}
    return sorted(leaves if reached == set(modules) else modules)


def sync_folder(folder: Path) -> None:
    """Flush every file in `folder` and the folder itself to the disk."""
    for path in (*sorted(folder.iterdir()), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _config(form: ServableForm, base_name: str, targets: list[str]) -> Mapping[str, Any]:
    alpha = form.scaling.alpha
    return {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": form.scaling.rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": form.scaling.rslora,
    }
