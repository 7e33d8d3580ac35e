"""A small base with two layers, an adapter that fits it, and ways to spoil the adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.report import CheckReport
from adapters.target import TargetBase
from adapters.tiny import make_tiny_adapter

HIDDEN, INTERMEDIATE, KV = 32, 64, 16
SIZES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, KV),
    "self_attn.v_proj": (HIDDEN, KV),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INTERMEDIATE),
    "mlp.up_proj": (HIDDEN, INTERMEDIATE),
    "mlp.down_proj": (INTERMEDIATE, HIDDEN),
}
LINEAR_MODULES = {f"model.layers.{layer}.{name}": size for layer in range(2) for name, size in SIZES.items()}


@pytest.fixture
def target() -> TargetBase:
    return TargetBase(
        fingerprint="f" * 64,
        name="tiny-llama",
        linear_modules=LINEAR_MODULES,
        reference="someone/Tiny-Llama",
        tied_embeddings=True,
    )


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_tiny_adapter(
        tmp_path / "adapter", linear_modules=LINEAR_MODULES, base_name="someone/Tiny-Llama"
    )


@pytest.fixture
def edit_config(adapter: Path) -> Callable[..., None]:
    """Change keys of the adapter's configuration; a value of ... removes the key."""

    def edit(**changes: Any) -> None:
        path = adapter / CONFIG_NAME
        values = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))

    return edit


@pytest.fixture
def check(adapter: Path, target: TargetBase) -> Callable[..., CheckReport]:
    """Checks the adapter against the base; named arguments are put in place of the usual ones."""

    def run(**changes: Any) -> CheckReport:
        arguments: dict[str, Any] = {"target": target, "max_lora_rank": 16} | changes
        return check_adapter(adapter, **arguments)

    return run


def read_weights(adapter: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of the adapter's weights."""
    raw = (adapter / WEIGHTS_NAME).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def pack(header: dict[str, Any], data: bytes) -> bytes:
    """A safetensors file of that header and data."""
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


def write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    """Write numpy arrays as a safetensors file with the real library."""
    from safetensors.numpy import save_file

    save_file(tensors, path)


def load_tensors(adapter: Path) -> dict[str, Any]:
    """Read the adapter's weights with the real library."""
    from safetensors.numpy import load_file

    return dict(load_file(adapter / WEIGHTS_NAME))
