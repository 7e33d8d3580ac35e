"""A whole quantised base in the GPTQ layout, for servers that read no compressed-tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bases.folder import read_json_object
from bases.place import made_in_place
from bases.progress import Progress, log_progress
from bases.weights import INDEX_FILE, SINGLE_FILE, read_tensors, weight_files
from quantize.layout.errors import LayoutError
from quantize.layout.gptq import GROUPS, PACKED, SCALE, SHAPE, ZERO, has_zero_at_zero, to_gptq
from quantize.layout.scheme import WeightScheme, read_weight_scheme

QUANTIZE_CONFIG = "quantize_config.json"
_PARTS = (PACKED, SCALE, ZERO, SHAPE, GROUPS)


def write_gptq_layout(
    source: Path, target: Path, *, replace: bool = False, progress: Progress = log_progress
) -> None:
    """Write the compressed-tensors base in `source` to the new folder `target` in the GPTQ layout.

    Dequantised weights are equal bit for bit, and what is not quantised is copied. The folder appears whole or not
    at all; with `replace` one that exists stays until then. Raises LayoutError for a base that has no exact form in
    the layout and for a target that exists otherwise, BaseConversionError where it cannot be written.
    """
    scheme = read_weight_scheme(source)
    if target.exists() and not replace:
        raise LayoutError(f"{target} exists; name a new folder for the GPTQ layout.")
    with made_in_place(target, replace=replace, progress=progress) as partial:
        _copy_other_files(source, partial)
        less_one = _write_weights(source, partial, scheme)
        _write_configs(source, partial, scheme, "gptq" if less_one else "gptq_v2")


def _copy_other_files(source: Path, target: Path) -> None:
    weights = {file.name for file in weight_files(source)} | {INDEX_FILE, "config.json"}
    for file in source.iterdir():
        if file.is_file() and file.name not in weights:
            shutil.copyfile(file, target / file.name)


def _write_weights(source: Path, target: Path, scheme: WeightScheme) -> bool:
    """Write the weights, in as many files as the source has, and return whether zero points are stored less one."""
    from safetensors.torch import save_file

    files = weight_files(source)
    file_of = {tensor.name: file for file in files for tensor in read_tensors(file)}
    layers = [name.removesuffix(f".{PACKED}") for name in file_of if name.endswith(f".{PACKED}")]
    parts = {layer: _parts(layer, file_of) for layer in layers}
    taken = {name for named in parts.values() for name in named.values()}
    less_one = not any(
        has_zero_at_zero(layer, _read(parts[layer], file_of), scheme)
        for layer in (layers if not scheme.symmetric else [])
    )
    index: dict[str, str] = {}
    total_bytes = 0
    for file in files:
        plain = {name: name for name, place in file_of.items() if place == file and name not in taken}
        tensors = _read(plain, file_of)
        # The parts of a layer may lie in several files; they go where its values were.
        for layer in layers:
            if file_of[f"{layer}.{PACKED}"] == file:
                made = to_gptq(layer, _read(parts[layer], file_of), scheme, less_one=less_one)
                tensors |= {f"{layer}.{name}": tensor for name, tensor in made.items()}
        if tensors:
            save_file(tensors, target / file.name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file.name)
        total_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if [file.name for file in files] != [SINGLE_FILE]:
        _write_json(
            target / INDEX_FILE,
            {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(index.items()))},
        )
    return less_one


def _parts(layer: str, file_of: Mapping[str, Path]) -> dict[str, str]:
    """Part of a layer -> full name of its tensor."""
    return {part: f"{layer}.{part}" for part in _PARTS if f"{layer}.{part}" in file_of}


def _read(names: Mapping[str, str], file_of: Mapping[str, Path]) -> dict[str, Any]:
    from safetensors import safe_open

    tensors = {}
    by_file: dict[Path, list[str]] = {}
    for key, name in names.items():
        by_file.setdefault(file_of[name], []).append(key)
    for file, keys in by_file.items():
        with safe_open(file, framework="pt") as stream:
            for key in keys:
                tensors[key] = stream.get_tensor(names[key])
    return tensors


def _write_configs(source: Path, target: Path, scheme: WeightScheme, version: str) -> None:
    settings = {
        "bits": scheme.bits,
        "checkpoint_format": version,
        "desc_act": False,
        "group_size": -1 if scheme.group_size is None else scheme.group_size,
        "lm_head": False,
        "meta": {"quantizer": ["hotswap"]},
        "pack_dtype": "int32",
        "quant_method": "gptq",
        "sym": scheme.symmetric,
    }
    config = read_json_object(source / "config.json") | {"quantization_config": settings}
    _write_json(target / "config.json", config)
    _write_json(target / QUANTIZE_CONFIG, settings)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
