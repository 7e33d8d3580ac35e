"""Norms and SwiGLU in bfloat16 by one compiled operator each: vLLM's own bits, and what is left to vLLM."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm.platforms import current_platform

from serve.engine.cpu import native_norms, norms_16
from serve.engine.cpu.lowbit import ops
from tests.serve.engine.cpu.test_native_norms import WIDTH, eager_config, make_norm

pytestmark = [
    pytest.mark.skipif(not current_platform.is_cpu(), reason="the parts are for vLLM's CPU platform"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def kernels() -> None:
    if ops.available() != "native":
        pytest.skip(f"without compiled kernels nothing is replaced: {ops.reason()}")


def make_activation() -> Any:
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.activation import SiluAndMul

    with set_current_vllm_config(eager_config()):
        return SiluAndMul()


def shortened(module: Any) -> Any:
    forward = norms_16.shorten(module)
    assert forward is not None
    return forward


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_norms_are_bit_for_bit_vllms(rows):
    torch.manual_seed(rows)
    norm = make_norm(torch.bfloat16)
    forward = shortened(norm)
    x, residual = torch.randn(2, rows, WIDTH).to(torch.bfloat16)
    with torch.no_grad():
        found, expected = forward(x, residual), norm(x.clone(), residual.clone())
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert torch.equal(forward(x), norm(x))


@pytest.mark.parametrize("rows", [1, 4, 5, 40])
@pytest.mark.parametrize("width", [96, 1536])
def test_swiglu_is_bit_for_bit_vllms(rows, width):
    activation = make_activation()
    forward = shortened(activation)
    x = (3 * torch.randn(rows, 2 * width, generator=torch.Generator().manual_seed(rows))).to(torch.bfloat16)
    before = x.clone()
    assert torch.equal(forward(x), activation(x))
    assert torch.equal(x, before)


def test_other_types_and_strides_go_the_way_of_before(monkeypatch):
    norm = make_norm(torch.bfloat16)
    asked: list[tuple[int, ...]] = []

    def noted(x: torch.Tensor, residual: torch.Tensor | None = None) -> None:
        asked.append(tuple(x.shape))

    monkeypatch.setattr(norm, "forward", noted)
    forward = shortened(norm)
    x = torch.randn(4, 3 * WIDTH).to(torch.bfloat16)
    strided, plain = x[:, :WIDTH], x[:, :WIDTH].contiguous()
    forward(strided)
    forward(plain, strided)
    forward(plain.float())
    forward(plain, plain.float())
    assert asked == [(4, WIDTH)] * 4


def test_swiglu_of_other_types_is_left_to_what_was_there():
    activation = make_activation()
    x = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shortened(activation)(x), native_norms.silu_and_mul(x))


def test_norms_of_float32_over_a_part_or_without_a_weight_keep_their_forward():
    assert norms_16.shorten(make_norm(torch.float32)) is None
    assert norms_16.shorten(make_norm(torch.bfloat16, var_hidden_size=WIDTH // 2)) is None
    assert norms_16.shorten(make_norm(torch.bfloat16, has_weight=False)) is None
    assert norms_16.shorten(torch.nn.LayerNorm(WIDTH)) is None


def test_where_torch_adds_up_in_another_order_norms_are_left_alone(monkeypatch):
    class Other:
        @staticmethod
        def sums_of_squares(rows: torch.Tensor) -> torch.Tensor:
            return rows.flip(-1).pow(2).cumsum(-1)[:, -1].contiguous()

    monkeypatch.setattr(torch.ops, "hotswap_lowbit", Other)
    norms_16.sums_as_torch.cache_clear()
    try:
        assert not norms_16.sums_as_torch(WIDTH)
    finally:
        norms_16.sums_as_torch.cache_clear()
    monkeypatch.undo()
    assert norms_16.sums_as_torch(WIDTH)
    assert not norms_16.sums_as_torch(norms_16.WIDEST + 1)


def test_without_the_compiled_kernels_nothing_is_replaced(monkeypatch):
    monkeypatch.setattr(ops, "available", lambda: "torch")
    assert norms_16.shorten(make_norm(torch.bfloat16)) is None
    assert norms_16.shorten(make_activation()) is None
