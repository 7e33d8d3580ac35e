"""A quantised base in the GPTQ layout: read back with a reader of its own, the weights are the same numbers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adapters.training.base_model import load_training_model
from bases.errors import BaseConversionError
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base
from quantize.layout.checkpoint import write_gptq_layout
from quantize.layout.errors import LayoutError
from tests.full_disk import files_no_larger_than

SCHEMES = {
    "w4-sym-32": {"num_bits": 4, "symmetric": True, "strategy": "group", "group_size": 32},
    "w4-sym-128": {"num_bits": 4, "symmetric": True, "strategy": "group", "group_size": 128},
    "w4-asym-64": {"num_bits": 4, "symmetric": False, "strategy": "group", "group_size": 64},
    "w8-sym-channel": {"num_bits": 8, "symmetric": True, "strategy": "channel"},
    "w8-asym-32": {"num_bits": 8, "symmetric": False, "strategy": "group", "group_size": 32},
}


def quantise(original: Path, folder: Path, weights: dict[str, Any], **group: Any) -> Path:
    """Round the base to nearest with llmcompressor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # llmcompressor's own
        from llmcompressor import oneshot
        from llmcompressor.modifiers.quantization import QuantizationModifier

        groups = {"all": {"targets": ["Linear"], "weights": {"type": "int", **weights}, **group}}
        recipe = QuantizationModifier(config_groups=groups, ignore=["lm_head"])
        oneshot(model=str(original), recipe=recipe, output_dir=str(folder))
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("original") / "tiny", layers=1, tied_embeddings=True)


@pytest.fixture(scope="module", params=list(SCHEMES))
def quantised(
    request: pytest.FixtureRequest, original: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return quantise(original, tmp_path_factory.mktemp("quantised") / request.param, SCHEMES[request.param])


@pytest.fixture(scope="module")
def w4(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantise(original, tmp_path_factory.mktemp("w4") / "w4", SCHEMES["w4-sym-32"])


def read_gptq(folder: Path) -> dict[str, np.ndarray]:
    """Dequantise as the format is described: values along inputs, zero points along outputs, lowest bits first."""
    settings = json.loads((folder / "quantize_config.json").read_text())
    bits, tensors = settings["bits"], load_file(folder / "model.safetensors")
    per_word, less_one = 32 // bits, settings["checkpoint_format"] == "gptq"

    def value(words: np.ndarray, place: np.ndarray | int) -> np.ndarray:
        found: np.ndarray = (words.astype(np.int64) >> (place * bits)) & ((1 << bits) - 1)
        return found

    weights = {}
    for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        qweight, qzeros = tensors[f"{name}.qweight"].numpy(), tensors[f"{name}.qzeros"].numpy()
        scales, groups = tensors[f"{name}.scales"].float().numpy(), tensors[f"{name}.g_idx"].numpy()
        outputs = np.arange(scales.shape[1])
        zeros = value(qzeros[:, outputs // per_word], outputs % per_word) + less_one
        rows = [
            (value(qweight[i // per_word], i % per_word) - zeros[group]).astype(np.float32) * scales[group]
            for i, group in enumerate(groups)
        ]
        weights[name] = np.stack(rows, axis=1)
    return weights


def test_an_independent_reader_finds_the_same_weights(quantised: Path, tmp_path: Path) -> None:
    write_gptq_layout(quantised, tmp_path / "gptq")
    model = load_training_model(resolve_base(str(quantised), home=tmp_path), dtype=torch.float32).model
    found = read_gptq(tmp_path / "gptq")
    assert len(found) == 7
    for name, weight in found.items():
        assert np.array_equal(weight, model.get_submodule(name).weight.detach().numpy()), name


def test_what_is_not_quantised_is_copied_and_the_config_names_the_layout(w4: Path, tmp_path: Path) -> None:
    target = tmp_path / "gptq"
    write_gptq_layout(w4, target)
    with safe_open(w4 / "model.safetensors", framework="pt") as before:
        plain = [name for name in before.keys() if ".weight_" not in name]  # noqa: SIM118
        after = load_file(target / "model.safetensors")
        assert all(torch.equal(before.get_tensor(name), after[name]) for name in plain)
    assert {name for name in after if "proj" not in name} == {name for name in plain if "proj" not in name}
    settings = json.loads((target / "config.json").read_text())["quantization_config"]
    assert settings == json.loads((target / "quantize_config.json").read_text())
    assert settings["quant_method"] == "gptq"
    assert (settings["bits"], settings["group_size"], settings["sym"], settings["desc_act"]) == (
        4,
        32,
        True,
        False,
    )
    assert (target / "chat_template.jinja").read_bytes() == (w4 / "chat_template.jinja").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["gptq"]


def test_symmetric_zero_points_are_stored_less_one(w4: Path, tmp_path: Path) -> None:
    write_gptq_layout(w4, tmp_path / "gptq")
    tensors = load_file(tmp_path / "gptq" / "model.safetensors")
    assert (tensors["model.layers.0.mlp.up_proj.qzeros"] == 0x77777777).all()


def test_a_zero_point_of_zero_asks_for_the_second_version_of_the_format(
    original: Path, tmp_path: Path
) -> None:
    shifted = tmp_path / "shifted"
    shifted.mkdir()
    tensors = load_file(original / "model.safetensors")
    positive = {name: value.abs() if "up_proj" in name else value for name, value in tensors.items()}
    for file in original.iterdir():
        (shifted / file.name).write_bytes(file.read_bytes())
    save_file(positive, shifted / "model.safetensors", metadata={"format": "pt"})
    quantised = quantise(shifted, tmp_path / "quantised", SCHEMES["w4-asym-64"])
    write_gptq_layout(quantised, tmp_path / "gptq")
    settings = json.loads((tmp_path / "gptq" / "quantize_config.json").read_text())
    assert settings["checkpoint_format"] == "gptq_v2"
    model = load_training_model(resolve_base(str(quantised), home=tmp_path), dtype=torch.float32).model
    for name, weight in read_gptq(tmp_path / "gptq").items():
        assert np.array_equal(weight, model.get_submodule(name).weight.detach().numpy()), name


def test_layers_spread_over_files_are_joined(w4: Path, tmp_path: Path) -> None:
    sharded, whole = tmp_path / "sharded", tmp_path / "whole"
    sharded.mkdir()
    for file in w4.iterdir():
        if file.suffix != ".safetensors":
            (sharded / file.name).write_bytes(file.read_bytes())
    tensors = load_file(w4 / "model.safetensors")
    names = sorted(tensors)
    index: dict[str, str] = {}
    for number in (0, 1):  # every second tensor: the parts of a layer lie in both files
        part = f"model-{number}.safetensors"
        save_file(
            {name: tensors[name] for name in names[number::2]}, sharded / part, metadata={"format": "pt"}
        )
        index |= dict.fromkeys(names[number::2], part)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    write_gptq_layout(w4, whole)
    write_gptq_layout(sharded, tmp_path / "joined")
    wanted = load_file(whole / "model.safetensors")
    listed = json.loads((tmp_path / "joined" / "model.safetensors.index.json").read_text())["weight_map"]
    found = {name: load_file(tmp_path / "joined" / file)[name] for name, file in listed.items()}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_base_that_rounds_activations_is_refused_and_nothing_is_left(
    original: Path, tmp_path: Path
) -> None:
    activations = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}
    folder = quantise(original, tmp_path / "w8a8", SCHEMES["w8-sym-channel"], input_activations=activations)
    with pytest.raises(LayoutError, match="rounds activations"):
        write_gptq_layout(folder, tmp_path / "gptq")
    assert [path.name for path in tmp_path.iterdir()] == ["w8a8"]


def test_an_unquantised_base_and_an_existing_target_are_refused(
    original: Path, w4: Path, tmp_path: Path
) -> None:
    with pytest.raises(LayoutError, match="nothing, not with compressed-tensors"):
        write_gptq_layout(original, tmp_path / "gptq")
    with pytest.raises(LayoutError, match="exists"):
        write_gptq_layout(w4, tmp_path)


@pytest.mark.parametrize("left_out", ["model.layers.0.mlp.down_proj", "re:.*down_proj"])
def test_a_layer_that_was_left_out_is_refused_by_name(w4: Path, tmp_path: Path, left_out: str) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for file in w4.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["ignore"].append(left_out)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LayoutError, match=r"1 layers unquantised \(model.layers.0.mlp.down_proj\)"):
        write_gptq_layout(folder, tmp_path / "gptq")


def test_a_full_disk_is_named_and_leaves_what_was_there(w4: Path, tmp_path: Path) -> None:
    target = tmp_path / "gptq"
    target.mkdir()
    (target / "old").touch()
    with (
        pytest.raises(
            BaseConversionError, match=r"gptq cannot be written: File too large\. Free space there"
        ),
        files_no_larger_than(50_000),
    ):
        write_gptq_layout(w4, target, replace=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["gptq", "old"]
    write_gptq_layout(w4, target, replace=True)
    assert {"model.safetensors", "quantize_config.json"} < {path.name for path in target.iterdir()}
    assert (target / "model.safetensors").stat().st_mode & 0o777 == 0o644
