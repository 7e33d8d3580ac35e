"""Fused LoRA layers: PEFT's numbers, and PEFT's own way for everything that is not plain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.training import fused_lora
from adapters.training.fused_lora import fuse_lora
from bases.tiny import make_tiny_base

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [40, 41, 42, 43, 44, 45, 46]])
MakeModel = Callable[..., Any]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("fused")
    bases: dict[str, Path] = {
        name: make_tiny_base(folder / name, architecture=name) for name in ("llama", "qwen2")
    }

    def build(architecture: str = "llama", dtype: torch.dtype = torch.float32, **options: Any) -> Any:
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(bases[architecture], dtype=dtype)
        config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", **options)
        model = get_peft_model(base, config)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                if "lora_B" in name:
                    parameter.data.normal_(std=0.1, generator=generator)
        return model

    return build


def results(model: Any, *, autocast: bool = False) -> tuple[Any, dict[str, Any]]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=IDS).logits
    logits.float().log_softmax(-1).square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), gradients


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_outputs_and_gradients_are_pefts(make: MakeModel, architecture: str) -> None:
    plain, fused = make(architecture), make(architecture)
    assert fuse_lora(fused) == 14
    expected, wanted = results(plain)
    found, gradients = results(fused)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, wanted[name], rtol=1e-3, atol=1e-5 * float(wanted[name].abs().max())
        )


def test_half_precision_rounds_no_more_than_peft(make: MakeModel) -> None:
    _, exact = results(make())
    plain, fused = make(dtype=torch.bfloat16), make(dtype=torch.bfloat16)
    fuse_lora(fused)

    def error(model: Any) -> float:
        _, found = results(model, autocast=True)
        assert all(gradient.dtype == torch.float32 for gradient in found.values())
        differences = [(found[name] - exact[name]).norm() / exact[name].norm() for name in exact]
        return float(torch.stack(differences).mean())

    assert error(fused) < 1.1 * error(plain) < 0.3


def test_frozen_inputs_and_checkpointing_give_the_same_gradients(make: MakeModel) -> None:
    model = make()
    fuse_lora(model)
    _, expected = results(model)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    _, found = results(model)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = fused_lora._LoraLinear.apply

    def apply(*args: Any) -> Any:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(fused_lora._LoraLinear, "apply", apply)
    return calls


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
def test_plain_layers_are_fused_and_others_go_pefts_way(make: MakeModel, fused_calls: list[int]) -> None:
    for options, is_fused in (
        ({}, True),
        ({"use_rslora": True}, True),
        ({"use_dora": True}, False),
        ({"lora_bias": True}, False),
        ({"lora_dropout": 0.5}, False),
    ):
        model = make(**options)
        model.train()
        fuse_lora(model)
        fused_calls.clear()
        model(input_ids=IDS)
        assert len(fused_calls) == (14 if is_fused else 0), options
    model.eval()  # no dropout now
    model(input_ids=IDS)
    assert len(fused_calls) == 14


def test_disabled_and_merged_adapters_answer_as_ever(make: MakeModel, fused_calls: list[int]) -> None:
    model = make().eval()
    fuse_lora(model)
    adapted = model(input_ids=IDS).logits
    fused_calls.clear()
    with model.disable_adapter():
        base = model(input_ids=IDS).logits
    model.merge_adapter()
    merged = model(input_ids=IDS).logits
    assert not fused_calls
    assert (adapted - base).abs().max() > 0.01
    torch.testing.assert_close(merged, adapted, rtol=1e-3, atol=1e-3)


def test_names_and_saved_weights_are_unchanged(make: MakeModel) -> None:
    from peft import get_peft_model_state_dict

    plain, fused = make(), make()
    fuse_lora(fused)
    expected, found = get_peft_model_state_dict(plain), get_peft_model_state_dict(fused)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
