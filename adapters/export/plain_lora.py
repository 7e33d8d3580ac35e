"""The factors of a plain LoRA folder, as `save_pretrained` and the export write one."""

from __future__ import annotations

from pathlib import Path

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME, parse_config
from adapters.errors import ExportError
from adapters.export.factors import Factors
from adapters.tensor_name import LoraTensorName, parse_tensor_name


def read_factors(folder: Path) -> dict[str, Factors]:
    """The factors of each module in `folder`, float32 with the scale apart.

    What the configuration says beyond rank, alpha and rsLoRA is not looked at: check the folder first. Raises
    OSError where a file is missing.
    """
    from safetensors.torch import load_file

    config = parse_config((folder / CONFIG_NAME).read_bytes())
    tensors = load_file(folder / WEIGHTS_NAME)
    modules = sorted({name.module for name in map(parse_tensor_name, tensors) if name is not None})
    factors = {}
    for module in modules:
        rank, alpha = config.rank_and_alpha(module)
        factors[module] = Factors(
            tensors[str(LoraTensorName(module, "A"))].float(),
            tensors[str(LoraTensorName(module, "B"))].float(),
            alpha / (rank**0.5 if config.rslora else rank),
        )
    return factors


def read_initial_adapter(folder: Path) -> dict[str, Factors]:
    """The factors of each module in a folder that PEFT's save_pretrained wrote before training.

    Needed for initialisations that change the base's weights.
    """
    try:
        return read_factors(folder)
    except OSError as error:
        raise ExportError(
            f"The initial adapter in {folder} cannot be read: {error.strerror or error}. It is the folder that "
            "save_pretrained wrote before the first training step."
        ) from error
