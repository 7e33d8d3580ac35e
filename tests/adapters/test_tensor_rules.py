"""Weights that do not fit the configuration or the base, or would do nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.check import check_adapter
from adapters.target import TargetBase
from adapters.tiny import make_tiny_adapter
from tests.adapters.checking import Q0, edit_tensors, only
from tests.adapters.conftest import LINEAR_MODULES, load_tensors, pack, read_weights, write_tensors


def test_ranks_by_pattern_are_held_against_the_tensors(adapter, check, edit_config):
    tensors = load_tensors(adapter)
    tensors[f"{Q0}.lora_A.weight"] = np.ones((6, 32), np.float32)
    tensors[f"{Q0}.lora_B.weight"] = np.ones((32, 6), np.float32)
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    message = only(check(), "rank_mismatch")
    assert "rank 6" in message
    assert "gives it 4" in message
    edit_config(
        rank_pattern={"^model.layers.0.self_attn.q_proj": 6}, alpha_pattern={"layers.0.self_attn.q_proj": 3}
    )
    report = check()
    assert report.ok, report.render()
    assert report.facts.rank == 6


def test_a_module_the_base_lacks_is_named_with_its_nearest(adapter, check, edit_config):
    tensors = load_tensors(adapter)
    for factor in "AB":
        old = f"{Q0}.lora_{factor}.weight"
        tensors[old.replace("q_proj", "q_projj")] = tensors.pop(old)
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    edit_config(target_modules=["q_proj", "v_proj", "q_projj"])
    message = only(check(), "target_unknown")
    assert "model.layers.0.self_attn.q_projj" in message
    assert "Nearest: model.layers.0.self_attn.q_proj" in message


def test_wrong_sizes_are_given_with_those_of_the_base(adapter, check):
    edit_tensors(adapter, **{f"{Q0}.lora_A.weight": np.ones((4, 31), np.float32)})
    message = only(check(), "shape_mismatch")
    assert "31 to 32" in message
    assert "32 to 32" in message


def test_a_vector_in_place_of_a_matrix_is_refused(adapter, check):
    edit_tensors(adapter, **{f"{Q0}.lora_A.weight": np.ones(128, np.float32)})
    assert "[128]" in only(check(), "shape_mismatch")


@pytest.mark.parametrize("missing", ["A", "B"])
def test_half_a_pair_is_refused(adapter, check, missing):
    edit_tensors(adapter, **{f"{Q0}.lora_{missing}.weight": None})
    assert f"no lora_{missing}" in only(check(), "a_without_b")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "tensor_unknown"),
        (f"{Q0}.lora_A.default.weight", "tensor_unknown"),
        (f"{Q0}.lora_C.weight", "tensor_unknown"),
        (f"{Q0}.lora_B.bias", "bias"),
        (f"{Q0}.lora_magnitude_vector.weight", "dora"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding_layer"),
        ("base_model.model.lm_head.weight", "embedding_layer"),
        ("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", "embedding_layer"),
        ("base_model.model.score.modules_to_save.weight", "modules_to_save"),
        ("base_model.model.x.token_adapter.trainable_tokens_delta", "trainable_tokens"),
    ],
)
def test_a_tensor_the_engine_would_choke_on_is_refused(adapter, check, name, code):
    edit_tensors(adapter, **{name: np.ones((4, 4), np.float32)})
    only(check(), code)


def with_lm_head(adapter: Path, edit_config) -> None:
    edit_tensors(
        adapter,
        **{
            "base_model.model.lm_head.lora_A.weight": np.ones((4, 32), np.float32),
            "base_model.model.lm_head.lora_B.weight": np.ones((99, 4), np.float32),
        },
    )
    edit_config(target_modules=["q_proj", "v_proj", "lm_head"])


def test_an_output_layer_tied_to_the_input_cannot_be_adapted(adapter, check, edit_config, target):
    with_lm_head(adapter, edit_config)
    only(check(), "embedding_layer")
    untied = TargetBase("f", "tiny-llama", {**LINEAR_MODULES, "lm_head": (32, 99)}, "x/Tiny-Llama")
    assert check(target=untied).ok


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_values_that_are_not_finite_are_counted(adapter, check, value, dtype):
    tensors = {name: tensor.astype(dtype) for name, tensor in load_tensors(adapter).items()}
    tensors[f"{Q0}.lora_B.weight"][3, 2] = value
    tensors[f"{Q0}.lora_B.weight"][9, 1] = value
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    message = only(check(), "non_finite")
    assert "2 values" in message
    assert "layers.0.self_attn.q_proj.lora_B" in message


def test_values_that_are_not_finite_are_found_in_bfloat16_and_beyond_the_first_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("adapters.artefact.CHUNK_BYTES", 64)
    folder = make_tiny_adapter(tmp_path / "half", linear_modules=LINEAR_MODULES, dtype="bfloat16")
    assert check_adapter(folder, target=None).ok
    header, data = read_weights(folder)
    spoiled = bytearray(data)
    end = header[f"{Q0}.lora_B.weight"]["data_offsets"][1]
    spoiled[end - 2 : end] = b"\x80\x7f"  # infinity
    (folder / WEIGHTS_NAME).write_bytes(pack(header, bytes(spoiled)))
    assert "1 value " in only(check_adapter(folder, target=None), "non_finite")


@pytest.mark.parametrize("factor", ["A", "B"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_an_adapter_that_changes_nothing_is_refused(adapter, check, factor, zero):
    tensors = load_tensors(adapter)
    for name in tensors:
        if f"lora_{factor}" in name:
            tensors[name][:] = zero
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    only(check(), "zero_effect")


def test_one_module_that_changes_something_is_enough(adapter, check):
    tensors = load_tensors(adapter)
    for name in tensors:
        if "lora_B" in name and not name.startswith(Q0):
            tensors[name][:] = 0
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    assert check().ok


def test_weights_outside_the_targets_are_refused(check, edit_config):
    edit_config(target_modules=["v_proj"])
    assert "q_proj" in only(check(), "target_mismatch")
    edit_config(target_modules=["self_attn.q_proj", "model.layers.0.self_attn.v_proj", "1.self_attn.v_proj"])
    assert check().ok
    edit_config(target_modules="all-linear")
    assert check().ok


def test_a_target_without_weights_is_a_warning(check, edit_config):
    edit_config(target_modules=["q_proj", "v_proj", "c_attn"])
    report = check()
    assert report.ok
    assert [warning.code for warning in report.warnings] == ["target_without_weights"]
    assert "c_attn" in report.warnings[0].message


def test_another_dtype_is_refused(adapter, check):
    tensors = {name: tensor.astype(np.float64) for name, tensor in load_tensors(adapter).items()}
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    assert "F64" in only(check(), "dtype_unsupported")
