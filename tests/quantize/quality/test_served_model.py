"""A base as it is served: rounded weights, and rounded inputs exactly where the scheme rounds them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapters.training.base_model import load_training_model
from bases.errors import BaseInvalidError
from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import make_tiny_base
from quantize.quality.served_model import load_as_served, rounds_activations

LAYER = "model.layers.0.mlp.up_proj"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> ResolvedBase:
    folder = tmp_path_factory.mktemp("original")
    return resolve_base(str(make_tiny_base(folder / "tiny", layers=1, tied_embeddings=True)), home=folder)


def quantise(original: ResolvedBase, folder: Path, scheme: str) -> ResolvedBase:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # llmcompressor's own
        from llmcompressor import oneshot
        from llmcompressor.modifiers.quantization import QuantizationModifier

        recipe = QuantizationModifier(scheme=scheme, targets="Linear", ignore=["lm_head"])
        oneshot(model=str(original.path), recipe=recipe, output_dir=str(folder / scheme))
    return resolve_base(str(folder / scheme), home=folder)


@pytest.fixture(scope="module")
def w8a8(original: ResolvedBase, tmp_path_factory: pytest.TempPathFactory) -> ResolvedBase:
    return quantise(original, tmp_path_factory.mktemp("w8a8"), "W8A8")


@pytest.fixture(scope="module")
def w4a16(original: ResolvedBase, tmp_path_factory: pytest.TempPathFactory) -> ResolvedBase:
    return quantise(original, tmp_path_factory.mktemp("w4a16"), "W4A16")


@pytest.fixture
def states() -> torch.Tensor:
    """[1, tokens, inputs], of very different sizes from token to token."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 5, 128, generator=generator) * torch.tensor([1e-3, 0.1, 1.0, 10.0, 100.0])[:, None]


def test_an_unquantised_base_is_the_plain_model(original: ResolvedBase) -> None:
    plain = AutoModelForCausalLM.from_pretrained(original.path, dtype=torch.float32).eval()
    ids = torch.arange(5, 40)[None]
    with torch.inference_mode():
        assert torch.equal(load_as_served(original)(ids).logits, plain(ids).logits)
    assert not rounds_activations(original)


def test_weight_only_schemes_round_no_activations(w4a16: ResolvedBase, states: torch.Tensor) -> None:
    layer = load_as_served(w4a16).get_submodule(LAYER)
    assert torch.equal(layer(states), torch.nn.functional.linear(states, layer.weight))
    assert not rounds_activations(w4a16)


def test_w8a8_rounds_every_token_to_its_own_127_and_a_half_steps(
    w8a8: ResolvedBase, states: torch.Tensor
) -> None:
    layer = load_as_served(w8a8).get_submodule(LAYER)
    step = states.abs().amax(-1, keepdim=True) / 127.5
    rounded = (states / step).round().clamp(-128, 127) * step
    expected = torch.nn.functional.linear(rounded, layer.weight)
    result = layer(states)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    unrounded = torch.nn.functional.linear(states, layer.weight)
    assert (result - unrounded).abs().max() > 100 * (result - expected).abs().max()
    assert rounds_activations(w8a8)


def test_float8_rounds_every_token_to_what_float8_can_say(
    original: ResolvedBase, tmp_path: Path, states: torch.Tensor
) -> None:
    layer = load_as_served(quantise(original, tmp_path, "FP8_DYNAMIC")).get_submodule(LAYER)
    step = states.abs().amax(-1, keepdim=True) / 448
    rounded = (states / step).to(torch.float8_e4m3fn).to(torch.float32) * step
    result = layer(states)
    torch.testing.assert_close(
        result, torch.nn.functional.linear(rounded, layer.weight), rtol=1e-6, atol=1e-6
    )
    assert not torch.allclose(result, torch.nn.functional.linear(states, layer.weight), rtol=1e-3)


def test_w8a8_weights_are_those_on_disk_and_none_is_rounded_twice(w8a8: ResolvedBase) -> None:
    served, plain = (
        model.get_submodule(LAYER).weight
        for model in (load_as_served(w8a8), load_training_model(w8a8, dtype=torch.float32).model)
    )
    assert torch.equal(served, plain)


def test_a_served_model_is_for_reading(w8a8: ResolvedBase) -> None:
    model = load_as_served(w8a8)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_quantisation_that_cannot_be_undone_is_refused(original: ResolvedBase, tmp_path: Path) -> None:
    for file in original.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = resolve_base(str(tmp_path), home=tmp_path)
    with pytest.raises(BaseInvalidError, match="cannot be measured"):
        load_as_served(base)
