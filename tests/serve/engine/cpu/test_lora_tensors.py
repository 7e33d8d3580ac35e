"""vLLM's reading of adapters: with the mend the same tensors, and no object that stays for each of them."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from vllm.lora import lora_model
from vllm.lora.peft_helper import PEFTHelper

from adapters.tiny import make_tiny_adapter
from serve.engine.cpu import lora_tensors

MODULES = {f"model.layers.{layer}.self_attn.q_proj": (16, 300) for layer in range(20)}
READINGS = 40


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    make_tiny_adapter(tmp_path / "a", linear_modules=MODULES, rank=3, alpha=6, targets=("q_proj",), seed=0)
    return tmp_path / "a"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_model, "safetensors", safetensors)
    lora_tensors.install()
    lora_tensors.install()


def read(folder: Path, dtype: torch.dtype = torch.bfloat16) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Both factors of each layer, as vLLM reads them."""
    helper = PEFTHelper.from_local_dir(str(folder), max_position_embeddings=None)
    model: Any = lora_model.LoRAModel.from_local_checkpoint(
        str(folder), {"q_proj"}, helper, lora_model_id=1, device="cpu", dtype=dtype
    )
    return {name: (layer.lora_a, layer.lora_b) for name, layer in model.loras.items()}


def left_behind(folder: Path) -> float:
    """Objects that stay after a reading, on average."""
    for _ in range(READINGS):
        read(folder)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(READINGS):
        read(folder)
    gc.collect()
    return (sys.getallocatedblocks() - before) / READINGS


def test_the_library_by_itself_still_leaves_objects_behind(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_model, "safetensors", safetensors)
    gone = "safetensors mends this itself now: remove serve/engine/cpu/lora_tensors.py and its entry"
    assert left_behind(adapter) > len(MODULES), gone


def test_with_the_mend_nothing_stays(adapter: Path, installed: None) -> None:
    assert left_behind(adapter) < len(MODULES) / 10


def test_the_tensors_are_the_same(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_model, "safetensors", safetensors)
    for dtype in (torch.float32, torch.bfloat16):
        expected = read(adapter, dtype)
        lora_tensors.install()
        found = read(adapter, dtype)
        monkeypatch.setattr(lora_model, "safetensors", safetensors)
        assert found.keys() == expected.keys()
        for name, factors in expected.items():
            for one, other in zip(found[name], factors, strict=True):
                assert one.dtype == other.dtype
                assert torch.equal(one, other)


def test_a_module_that_the_base_does_not_have_is_refused_as_before(tmp_path: Path, installed: None) -> None:
    modules = {"model.layers.0.self_attn.other": (8, 8)}
    make_tiny_adapter(tmp_path / "a", linear_modules=modules, rank=2, alpha=2, targets=("other",), seed=0)
    with pytest.raises(ValueError, match="target modules"):
        read(tmp_path / "a")


def test_a_large_file_is_read_as_before(
    tmp_path: Path, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"one": torch.arange(6.0)}, path)
    monkeypatch.setattr(lora_tensors, "MOST_BYTES", path.stat().st_size)
    opened = lora_model.safetensors.safe_open
    with opened(str(path), framework="pt") as small:
        assert isinstance(small, lora_tensors.Tensors)
        assert list(small.keys()) == ["one"]
        with pytest.raises(KeyError):
            small.get_tensor("two")
    monkeypatch.setattr(lora_tensors, "MOST_BYTES", path.stat().st_size - 1)
    with opened(str(path), framework="pt") as large:
        assert not isinstance(large, lora_tensors.Tensors)
        assert torch.equal(large.get_tensor("one"), torch.arange(6.0))


def test_what_is_no_safetensors_file_is_said(tmp_path: Path, installed: None) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not one")
    with pytest.raises(safetensors.SafetensorError):
        lora_model.safetensors.safe_open(str(path), framework="pt")
