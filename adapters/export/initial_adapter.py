"""The adapter as it was before the first step, for initialisations that change the base's weights."""

from __future__ import annotations

from pathlib import Path

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME, parse_config
from adapters.errors import ExportError
from adapters.export.factors import Factors
from adapters.tensor_name import LoraTensorName, parse_tensor_name


def read_initial_adapter(folder: Path) -> dict[str, Factors]:
    """The factors of each module in a folder that PEFT's save_pretrained wrote before training."""
    from safetensors.torch import load_file

    try:
        config = parse_config((folder / CONFIG_NAME).read_bytes())
        tensors = load_file(folder / WEIGHTS_NAME)
    except OSError as error:
        raise ExportError(
            f"The initial adapter in {folder} cannot be read: {error.strerror or error}. It is the folder that "
            "save_pretrained wrote before the first training step."
        ) from error
    modules = {name.module for name in map(parse_tensor_name, tensors) if name is not None}
    factors = {}
    for module in modules:
        rank, alpha = config.rank_and_alpha(module)
        factors[module] = Factors(
            tensors[str(LoraTensorName(module, "A"))].float(),
            tensors[str(LoraTensorName(module, "B"))].float(),
            alpha / (rank**0.5 if config.rslora else rank),
        )
    return factors
