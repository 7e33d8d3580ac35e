"""A small LoRA adapter made of random numbers, in PEFT's format: for tests and for trying the server out."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.tensor_name import LoraTensorName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DtypeName = Literal["float32", "float16", "bfloat16"]
_SAFETENSORS_DTYPES: Mapping[DtypeName, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def make_tiny_adapter(
    path: Path,
    *,
    linear_modules: Mapping[str, tuple[int, int]],
    rank: int = 4,
    alpha: float = 8,
    targets: Collection[str] = ("q_proj", "v_proj"),
    seed: int = 0,
    scale: float = 0.05,
    dtype: DtypeName = "float32",
    base_name: str = "",
) -> Path:
    """Write an adapter into the folder `path`, which is made, and return it.

    `linear_modules` maps full module names to (in_features, out_features), as in a base's passport; those
    whose last part is in `targets` are adapted. A and B are normal with standard deviation 1/sqrt(in) and
    `scale`, so a larger `scale` moves the base further. The same arguments give the same bytes.
    Raises ValueError when no module is among the targets.
    """
    import numpy as np

    adapted = {name: size for name, size in linear_modules.items() if name.rpartition(".")[2] in targets}
    if not adapted:
        raise ValueError(
            f"None of {sorted(targets)} is a linear module of the base: {sorted(linear_modules)[:8]}"
        )
    generator = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}
    for module, (in_features, out_features) in sorted(adapted.items()):
        a = generator.standard_normal((rank, in_features), dtype=np.float32) / np.sqrt(
            np.float32(in_features)
        )
        b = generator.standard_normal((out_features, rank), dtype=np.float32) * np.float32(scale)
        tensors[str(LoraTensorName(module, "A"))] = a
        tensors[str(LoraTensorName(module, "B"))] = b
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (path / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (path / WEIGHTS_NAME).write_bytes(_serialise(tensors, dtype))
    return path


def _serialise(tensors: Mapping[str, NDArray[np.float32]], dtype: DtypeName) -> bytes:
    """A whole safetensors file. The library's numpy side cannot write it: numpy has no bfloat16."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    position = 0
    for name, values in tensors.items():
        raw = _to_bytes(values, dtype)
        header[name] = {
            "dtype": _SAFETENSORS_DTYPES[dtype],
            "shape": list(values.shape),
            "data_offsets": [position, position + len(raw)],
        }
        position += len(raw)
        parts.append(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # the data starts aligned, as the library writes it
    return len(head).to_bytes(8, "little") + head + b"".join(parts)


def _to_bytes(values: NDArray[np.float32], dtype: DtypeName) -> bytes:

    if dtype == "float32":
        return values.astype("<f4").tobytes()
    if dtype == "float16":
        return values.astype("<f2").tobytes()
    bits = values.astype("<f4").view("<u4")
    rounded: NDArray[np.uint32] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
    return rounded.astype("<u2").tobytes()
