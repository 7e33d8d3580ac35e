"""Training against a quantised base: the weights that are served, rounded as they are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.errors import TrainingError
from adapters.training.base_model import load_training_model
from adapters.training.run import train_adapter
from adapters.training.settings import TrainSettings
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base

LAYER = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("original") / "tiny", layers=2)


@pytest.fixture(scope="module", params=["W8A8", "W4A16"])
def quantised(
    request: pytest.FixtureRequest, original: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny base rounded to nearest by llmcompressor, as `hotswap quantize` users have theirs."""
    folder: Path = tmp_path_factory.mktemp("quantised") / request.param
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # llmcompressor's own
        from llmcompressor import oneshot
        from llmcompressor.modifiers.quantization import QuantizationModifier

        recipe = QuantizationModifier(scheme=request.param, targets="Linear", ignore=["lm_head"])
        oneshot(model=str(original), recipe=recipe, output_dir=str(folder))
    return folder


def test_dequantised_weights_are_scale_times_integers(quantised: Path, tmp_path: Path) -> None:
    loaded = load_training_model(resolve_base(str(quantised), home=tmp_path), dtype=torch.float32)
    weight = loaded.model.get_submodule(LAYER).weight
    assert torch.equal(weight, _from_file(quantised))
    assert quantised.name in loaded.note


def test_what_is_loaded_is_a_plain_model_that_gradients_pass(quantised: Path, tmp_path: Path) -> None:
    model = load_training_model(resolve_base(str(quantised), home=tmp_path), dtype=torch.float32).model
    layer = model.get_submodule(LAYER)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    states = torch.randn(3, layer.in_features, requires_grad=True)
    result = layer(states)
    # Bit for bit: activations are not rounded, so W8A8 has a gradient.
    assert torch.equal(result, torch.nn.functional.linear(states, layer.weight))
    result.sum().backward()
    assert states.grad is not None and bool(states.grad.abs().sum() > 0)


def test_an_adapter_is_trained_on_it_and_the_manifest_says_so(
    quantised: Path, make_settings: Callable[..., TrainSettings], examples_file: Path
) -> None:
    lines: list[str] = []
    outcome = train_adapter(
        [DataSource(examples_file)],
        name="risk",
        settings=make_settings(base=str(quantised), max_steps=3),
        data_settings=DataSettings(),
        say=lines.append,
    )
    manifest = json.loads((outcome.adapter_folder / "hotswap.json").read_text())
    assert any("dequantised" in note for note in manifest["training"]["notes"])
    assert any("dequantised" in line for line in lines)


def test_loftq_starts_nearer_to_the_original_than_the_rounded_base(
    quantised: Path, original: Path, make_settings: Callable[..., TrainSettings], tmp_path: Path
) -> None:
    from adapters.training.methods.method import prepare_model
    from adapters.training.methods.registry import METHODS

    settings = make_settings(base=str(quantised), method="loftq", original_base=str(original), rank=16)
    rounded = load_training_model(resolve_base(str(quantised), home=tmp_path), dtype=torch.float32).model
    kept = rounded.get_submodule(LAYER).weight.clone()
    model = prepare_model(rounded, METHODS["loftq"], settings, folder=tmp_path).model
    layer = model.get_base_model().get_submodule(LAYER)
    true = load_training_model(resolve_base(str(original), home=tmp_path), dtype=torch.float32).model
    lost = true.get_submodule(LAYER).weight - kept
    assert torch.equal(layer.get_base_layer().weight, kept)
    left = lost - layer.get_delta_weight("default")
    assert left.norm() < 0.95 * lost.norm()


def test_another_quantisation_is_refused_with_what_to_do(original: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(original, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match=r"'gptq'.*compressed-tensors"):
        load_training_model(resolve_base(str(folder), home=tmp_path), dtype=torch.float32)


def _from_file(folder: Path) -> torch.Tensor:
    """The layer's weight by hand: integers times their scales."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        scale = file.get_tensor(f"{LAYER}.weight_scale").float()
        if folder.name == "W8A8":
            return file.get_tensor(f"{LAYER}.weight").float() * scale
        packed = file.get_tensor(f"{LAYER}.weight_packed")
        rows, columns = file.get_tensor(f"{LAYER}.weight_shape").tolist()
    nibbles = torch.stack([(packed >> (4 * place)) & 15 for place in range(8)], dim=-1).reshape(rows, columns)
    group = columns // scale.shape[1]
    return (nibbles - 8).float() * scale.repeat_interleave(group, dim=1)
