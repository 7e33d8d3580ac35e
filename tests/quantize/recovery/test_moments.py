"""Second moments are those of what each layer is given, whoever shares or rounds it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bases.resolve import ResolvedBase
from quantize.quality.served_model import load_as_served
from quantize.recovery.moments import gather_moments

LAYER = "model.layers.1"
MODULES = [
    f"{LAYER}.{name}"
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.down_proj")
]


def test_moments_are_sums_over_all_tokens_of_all_rows(original: ResolvedBase, rows: list[list[int]]) -> None:
    model = load_as_served(original)
    moments = gather_moments(model, MODULES, rows[:3])
    seen: list[Any] = []
    handle = model.get_submodule(MODULES[3]).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        for row in rows[:3]:
            model(input_ids=torch.tensor([row]))
    handle.remove()
    states = torch.cat([each[0] for each in seen]).double()
    assert moments.num_tokens == len(states) == 3 * len(rows[0])
    assert torch.allclose(moments.sums[MODULES[3]], states.T @ states, rtol=1e-4, atol=1e-3)


def test_layers_that_read_the_same_states_share_a_moment(
    original: ResolvedBase, rows: list[list[int]]
) -> None:
    moments = gather_moments(load_as_served(original), MODULES, rows[:2])
    assert moments.groups() == {
        MODULES[0]: (MODULES[0], MODULES[1]),
        MODULES[2]: (MODULES[2],),
        MODULES[3]: (MODULES[3],),
    }


def test_no_hook_stays_behind(original: ResolvedBase, rows: list[list[int]]) -> None:
    model = load_as_served(original)
    gather_moments(model, MODULES, rows[:1])
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("module", [MODULES[0], MODULES[3]])
def test_a_layer_that_rounds_its_inputs_is_read_before_it_does(
    eight_bits: ResolvedBase, rows: list[list[int]], module: str
) -> None:
    model = load_as_served(eight_bits)
    moment = gather_moments(model, [module], rows[:1]).sums[module]
    given: list[Any] = []
    # What comes before the layer gives it: the norm, or the product of gate and up.
    parent = model.get_submodule(module.rpartition(".")[0])
    if module.endswith("q_proj"):
        norm = model.get_submodule(f"{LAYER}.input_layernorm")
        norm.register_forward_hook(lambda *call: given.append(call[-1]))
    else:
        inner: dict[str, Any] = {}
        parent.gate_proj.register_forward_hook(lambda *call: inner.update(gate=call[-1]))
        parent.up_proj.register_forward_hook(lambda *call: inner.update(up=call[-1]))
        parent.register_forward_hook(
            lambda *_: given.append(torch.nn.functional.silu(inner["gate"]) * inner["up"])
        )
    with torch.inference_mode():
        model(input_ids=torch.tensor([rows[0]]))
    states = given[0][0].double()
    assert torch.allclose(moment, states.T @ states, rtol=1e-4, atol=1e-4)
