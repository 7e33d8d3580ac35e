"""Plain linear layers and output layers that are multiplied by our kernels, and those that stay with vLLM."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm.model_executor.layers import utils
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.platforms import current_platform

from serve.engine.cpu import direct_linear, embedding_copy, plain_weights
from serve.engine.cpu.lowbit import blocks, ops
from tests.serve.engine.cpu.test_direct_layers import make_layer

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the mends are for vLLM's CPU platform")

DTYPES = [torch.float32, torch.bfloat16]
OUTPUTS, COLUMNS = 150, 96


@pytest.fixture(autouse=True)
def functions_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo whatever a test installs."""
    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", utils.dispatch_cpu_unquantized_gemm)
    name = "process_weights_after_loading"
    monkeypatch.setattr(UnquantizedEmbeddingMethod, name, UnquantizedEmbeddingMethod.__dict__[name])


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The part is installed; the shapes that its product is given."""
    if ops.available() != "native":
        pytest.skip(f"without compiled kernels nothing is replaced: {ops.reason()}")
    seen: list[tuple[int, ...]] = []
    multiply = blocks.BlockedWeight.multiply

    def noted(self: Any, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return multiply(self, x, bias)

    monkeypatch.setattr(blocks.BlockedWeight, "multiply", noted)
    plain_weights.install()
    plain_weights.install()
    return seen


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.nn.Module:
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
    return layer


def skip_without_blocks(dtype: torch.dtype) -> None:
    if blocks.blocked(torch.ones(64, 64, dtype=dtype)) is None:
        pytest.skip(f"torch's oneDNN has no blocks of {dtype} here that the kernels read")


def assert_near(found: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    rounding = 1e-6 if dtype == torch.float32 else 2.0**-8
    assert float((found.double() - exact).abs().max()) <= rounding * float(exact.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_is_multiplied_by_ours_and_its_weight_is_dropped(
    multiplied: list[tuple[int, ...]], dtype: torch.dtype, has_bias: bool
) -> None:
    skip_without_blocks(dtype)
    torch.manual_seed(0)
    weight = torch.randn(OUTPUTS, COLUMNS).to(dtype)
    bias = torch.randn(OUTPUTS).to(dtype) if has_bias else None
    layer, method = linear(weight, bias), UnquantizedLinearMethod()
    method.process_weights_after_loading(layer)
    assert layer.weight.numel() == 0
    assert layer.weight.dtype == dtype
    shapes = [(1, COLUMNS), (40, COLUMNS), (2, 3, COLUMNS)]
    for shape in shapes:
        x = torch.randn(shape).to(dtype)
        exact = x.double() @ weight.double().t()
        exact = exact if bias is None else exact + bias.double()
        assert_near(method.apply(layer, x, layer.bias), exact, dtype)
    assert multiplied == shapes


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_output_layer_keeps_its_table_and_an_embedding_gets_blocks_when_it_is_multiplied(
    multiplied: list[tuple[int, ...]], dtype: torch.dtype
) -> None:
    skip_without_blocks(dtype)
    embedding_copy.install()
    table = torch.randn(OUTPUTS, COLUMNS).to(dtype)
    tokens = linear(table)
    head = ParallelLMHead.__new__(ParallelLMHead)
    torch.nn.Module.__init__(head)
    head.weight = tokens.weight
    method = UnquantizedEmbeddingMethod()
    for layer in (tokens, head):
        method.process_weights_after_loading(layer)
    assert head.weight is tokens.weight
    assert torch.equal(method.embedding(tokens, torch.tensor([7])), table[[7]])
    x = torch.randn(3, COLUMNS).to(dtype)
    for layer in (tokens, head):
        assert_near(method.apply(layer, x), x.double() @ table.double().t(), dtype)
    assert multiplied == [(3, COLUMNS)] * 2


def test_a_layer_with_adapters_multiplies_by_its_base_layers_product(
    multiplied: list[tuple[int, ...]],
) -> None:
    layer = make_layer("RowParallelLinearWithLoRA")
    base = layer.base_layer
    base.quant_method = UnquantizedLinearMethod()
    base.quant_method.process_weights_after_loading(base)
    forward = direct_linear.shorten(layer)
    assert forward is not None
    x = torch.randn(3, 6)
    found, expected = forward(x), layer.forward(x)
    assert torch.equal(found[0], expected[0])
    assert multiplied == [(3, 6)] * 2


@pytest.mark.parametrize(
    "weight",
    [
        torch.empty(8, 8, device="meta"),
        torch.randn(8, 1, 8),
        torch.randn(8, 8, dtype=torch.float64),
        torch.randn(1, 8),
    ],
    ids=["not there", "a convolution", "another type", "one output"],
)
def test_what_is_not_a_plain_weight_for_onednn_stays_with_vllm(
    multiplied: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, weight: torch.Tensor
) -> None:
    layer = linear(weight)
    assert not plain_weights.keep(layer, remove_weight=True)
    assert layer.weight.shape == weight.shape
    assert not hasattr(layer, "cpu_linear")


def test_what_vllm_gives_to_another_library_stays_there(
    multiplied: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = linear(torch.randn(64, 64))
    with monkeypatch.context() as patched:
        patched.setattr(utils, "check_cpu_sgl_kernel", lambda *_: True)  # small weights, with AMX
        assert not plain_weights.keep(layer, remove_weight=True)
    with monkeypatch.context() as patched:
        patched.setattr(type(current_platform), "is_zen_cpu", lambda _: True)
        assert not plain_weights.keep(layer, remove_weight=True)
    assert plain_weights.keep(layer, remove_weight=True)


def test_without_the_compiled_kernels_vllm_packs_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "available", lambda: "torch")
    before = utils.dispatch_cpu_unquantized_gemm
    plain_weights.install()
    assert utils.dispatch_cpu_unquantized_gemm is before
