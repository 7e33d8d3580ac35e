"""RMS norms by the C++ operators, and SwiGLU, against vLLM's own and against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm.platforms import current_platform

from serve.engine.cpu import native_norms

pytestmark = [
    pytest.mark.skipif(not current_platform.is_cpu(), reason="the parts are for vLLM's CPU platform"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]

WIDTH = 576
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 4e-2}  # of values up to 4, a few roundings


def eager_config() -> Any:
    """vLLM without a compiler, as the gateway starts it."""
    from vllm.config import CompilationConfig, CompilationMode, VllmConfig

    return VllmConfig(compilation_config=CompilationConfig(mode=CompilationMode.NONE, custom_ops=["all"]))


def make_norm(dtype: torch.dtype, **options: Any) -> Any:
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.layernorm import RMSNorm

    with set_current_vllm_config(eager_config()):
        norm = RMSNorm(WIDTH, eps=1e-5, dtype=dtype, **options)
    if norm.has_weight:
        norm.weight.data = (1 + 0.1 * torch.randn(WIDTH)).to(dtype)
    return norm


def exact_norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    x = x.double()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * norm.weight.double()


@pytest.mark.parametrize("rows", [1, 3, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_those_of_float64_within_rounding(dtype, rows):
    torch.manual_seed(0)
    norm = make_norm(dtype)
    forward = native_norms.shorten(norm)
    assert forward is not None
    x, residual = torch.randn(rows, WIDTH).to(dtype), torch.randn(rows, WIDTH).to(dtype)
    with torch.no_grad():
        alone = forward(x)
        assert (alone.double() - exact_norm(x, norm)).abs().max() < ROUNDING[dtype]
        expected = exact_norm(x.double() + residual.double(), norm)
        _, expected_residual = norm(x.clone(), residual.clone())
        found, found_residual = forward(x.clone(), residual.clone())
    assert (found.double() - expected).abs().max() < ROUNDING[dtype]
    assert torch.equal(found_residual, expected_residual)


def test_sixteen_bits_are_bit_for_bit_the_same():
    torch.manual_seed(0)
    norm = make_norm(torch.bfloat16)
    forward = native_norms.shorten(norm)
    assert forward is not None
    x, residual = torch.randn(200, WIDTH).to(torch.bfloat16), torch.randn(200, WIDTH).to(torch.bfloat16)
    with torch.no_grad():
        before = x.clone(), residual.clone()
        found, expected = forward(x, residual), norm(x.clone(), residual.clone())
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert torch.equal(forward(x), norm(x))
        assert torch.equal(x, before[0])
        assert torch.equal(residual, before[1])


def test_what_the_operators_do_not_look_at_is_left_to_vllm():
    torch.manual_seed(0)
    norm = make_norm(torch.float32)
    forward = native_norms.shorten(norm)
    assert forward is not None
    wide = torch.randn(4, 3 * WIDTH)
    strided = wide[:, WIDTH : 2 * WIDTH]
    with torch.no_grad():
        assert torch.equal(forward(strided), norm(strided.contiguous()))
        assert torch.equal(
            forward(strided.contiguous(), strided)[0], norm(strided.contiguous(), strided.contiguous())[0]
        )
        other_dtype = strided.contiguous().to(torch.bfloat16)
        assert torch.equal(forward(other_dtype), norm(other_dtype))


def test_norms_over_a_part_or_without_a_weight_keep_their_forward():
    assert native_norms.shorten(make_norm(torch.float32, var_hidden_size=WIDTH // 2)) is None
    assert native_norms.shorten(make_norm(torch.float32, has_weight=False)) is None
    assert native_norms.shorten(torch.nn.LayerNorm(WIDTH)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_is_bit_for_bit_the_same_and_leaves_its_input_alone(dtype):
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.activation import SiluAndMul

    with set_current_vllm_config(eager_config()):
        activation = SiluAndMul()
    forward = native_norms.shorten(activation)
    assert forward is not None
    x = torch.randn(5, 2 * 96, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = x.clone()
    assert torch.equal(forward(x), activation(x))
    assert torch.equal(x, before)
