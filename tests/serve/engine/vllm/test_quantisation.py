"""Schemes read from config.json, and what vLLM cannot serve of them."""

from __future__ import annotations

from typing import Any

import pytest

from serve.engine.vllm.quantisation import Quantisation, read_quantisation


def groups(*found: dict[str, Any]) -> dict[str, Any]:
    numbered = {f"group_{number}": group for number, group in enumerate(found)}
    return {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": numbered}}


def weights(bits: int = 4, group: int | None = 64, **given: Any) -> dict[str, Any]:
    strategy = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
    return {"weights": {"num_bits": bits, "type": "int", "symmetric": True, **strategy, **given}}


TOKENS = {"input_activations": {"num_bits": 8, "type": "int", "dynamic": True, "strategy": "token"}}


def gptq(**given: Any) -> dict[str, Any]:
    plain = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
    return {"quantization_config": {**plain, **given}}


def read(config: dict[str, Any]) -> Quantisation:
    found = read_quantisation(config)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("config", "scheme", "weight_only"),
    [
        (groups(weights()), "W4A16 group 64", True),
        (groups(weights(symmetric=False), weights(symmetric=False)), "W4A16 group 64 asymmetric", True),
        (groups(weights(8, None)), "W8A16 per channel", True),
        (groups(weights(8, None) | TOKENS), "W8A8 per channel", False),
        (groups(weights(), weights(8, None) | TOKENS), "W4A16 group 64, W8A8 per channel", True),
        (gptq(), "GPTQ W4A16 group 128", True),
        (gptq(group_size=-1, desc_act=True, bits=8), "GPTQ W8A16 per channel", True),
        (
            {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}},
            "AWQ W4A16 group 32 asymmetric",
            True,
        ),
        ({"quantization_config": {"quant_method": "quark"}}, "quark", False),
    ],
)
def test_the_scheme_is_named_by_bits_groups_and_symmetry(config, scheme, weight_only):
    found = read(config)
    assert (found.scheme, found.weight_only) == (scheme, weight_only)
    assert found.problem("cpu") is None
    assert found.problem("cuda") is None


def test_a_base_without_quantisation_has_none():
    assert read_quantisation({"model_type": "llama"}) is None
    assert read_quantisation({"quantization_config": None}) is None


@pytest.mark.parametrize("config", [groups(weights(actorder="group")), gptq(desc_act=True)])
def test_columns_grouped_by_activation_are_refused_everywhere(config):
    for device in ("cpu", "cuda"):
        problem = read(config).problem(device)
        assert problem is not None
        assert "actorder=group" in problem


@pytest.mark.parametrize("order", ["static", "weight", None])
def test_orders_that_leave_the_columns_in_place_are_served(order):
    assert read(groups(weights(actorder=order))).problem("cpu") is None


@pytest.mark.parametrize(
    "config",
    [
        groups({"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}),
        {"quantization_config": {"quant_method": "fp8"}},
    ],
)
def test_weights_of_floating_point_need_a_gpu(config):
    assert "needs a GPU" in str(read(config).problem("cpu"))
    assert read(config).problem("cuda") is None


@pytest.mark.parametrize(
    ("given", "fixed"),
    [({}, False), ({"dynamic": False, "strategy": "tensor"}, True), ({"symmetric": False}, True)],
)
def test_inputs_are_rounded_with_scales_per_token_or_with_fixed_ones(given, fixed):
    inputs = {"input_activations": TOKENS["input_activations"] | given}
    found = read(groups(weights(8, None) | inputs))
    assert (found.rounds_inputs, found.fixed_inputs) == (True, fixed)
    assert not read(groups(weights())).rounds_inputs


def test_gptqs_layout_with_zero_points_is_refused():
    assert "symmetric GPTQ checkpoints alone" in str(read(gptq(sym=False)).problem("cpu"))
