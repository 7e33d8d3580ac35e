"""The vocabulary's table: stored in 16 bits where that is exact, and packed only where somebody multiplies."""

from __future__ import annotations

import pytest
import torch
from vllm.model_executor.layers import utils
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.platforms import current_platform

from serve.engine.cpu import embedding_copy, lm_head_16
from serve.engine.cpu.lowbit import ops

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the mends are for vLLM's CPU platform")

METHODS = ("process_weights_after_loading", "apply", "embedding")


@pytest.fixture(autouse=True)
def methods_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo whatever a test installs."""
    for name in METHODS:
        monkeypatch.setattr(UnquantizedEmbeddingMethod, name, UnquantizedEmbeddingMethod.__dict__[name])


@pytest.fixture
def stored16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "available", lambda: "native")
    lm_head_16.install()
    lm_head_16.install()


def table(*, exact: bool) -> torch.Tensor:
    values = torch.randn(300, 64)
    return values.to(torch.bfloat16).to(torch.float32) if exact else values


def embedding(values: torch.Tensor) -> torch.nn.Module:
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(values, requires_grad=False)
    return layer


def output(values: torch.Tensor) -> torch.nn.Module:
    """An output layer without vLLM's parallel state."""
    layer = ParallelLMHead.__new__(ParallelLMHead)
    torch.nn.Module.__init__(layer)
    layer.weight = torch.nn.Parameter(values, requires_grad=False)
    layer.bias = None
    return layer


def loaded(*layers: torch.nn.Module) -> UnquantizedEmbeddingMethod:
    method = UnquantizedEmbeddingMethod()
    for layer in layers:
        method.process_weights_after_loading(layer)
    return method


def test_an_exact_table_is_held_once_in_16_bits_by_both_layers_that_share_it(stored16):
    values = table(exact=True)
    tokens, head = embedding(values.clone()), output(values)
    head.weight = tokens.weight
    method = loaded(tokens, head)
    assert head.weight is tokens.weight
    assert head.weight.dtype == torch.bfloat16
    assert not hasattr(head, "cpu_linear")  # no copy in oneDNN's layout
    looked_up = method.embedding(tokens, torch.tensor([[7, 299]]))
    assert torch.equal(looked_up, values[[7, 299]].unsqueeze(0))
    x, bias = torch.randn(2, 3, 64), torch.randn(300)
    expected = (x.double() @ values.double().t() + bias).float()
    assert torch.allclose(method.apply(head, x, bias), expected, atol=1e-4)


def test_a_table_that_would_be_rounded_stays_as_it_is(stored16):
    values = table(exact=True)
    values[299, 63] += 2**-20
    head = output(values.clone())
    method = loaded(head)
    assert head.weight.dtype == torch.float32
    assert torch.equal(method.embedding(head, torch.tensor([299])), values[[299]])
    x = torch.randn(4, 64)
    assert torch.allclose(method.apply(head, x), x @ values.t(), atol=1e-4)


def test_a_base_served_in_bfloat16_is_vllms(stored16):
    head = output(table(exact=True).to(torch.bfloat16))
    method = loaded(head)
    assert not lm_head_16.is_stored16(head)
    assert method.embedding(head, torch.tensor([1])).dtype == torch.bfloat16


def test_without_the_compiled_kernels_nothing_is_stored_otherwise(monkeypatch):
    monkeypatch.setattr(ops, "available", lambda: "torch")
    lm_head_16.install()
    head = output(table(exact=True))
    loaded(head)
    assert head.weight.dtype == torch.float32


def test_vllm_by_itself_still_packs_a_copy_of_the_embedding():
    tokens = embedding(table(exact=False))
    loaded(tokens)
    gone = "vLLM mends this itself now: remove serve/engine/cpu/embedding_copy.py and its entry"
    assert hasattr(tokens, "cpu_linear"), gone


def test_an_embedding_is_packed_when_it_is_multiplied_and_an_output_layer_at_once(monkeypatch):
    packed: list[torch.nn.Module] = []
    dispatch = utils.dispatch_cpu_unquantized_gemm

    def noted(layer: torch.nn.Module, **given: bool) -> None:
        packed.append(layer)
        dispatch(layer, **given)

    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", noted)
    embedding_copy.install()
    embedding_copy.install()
    values = table(exact=False)
    tokens, head = embedding(values), output(values)
    method = loaded(tokens, head)
    assert torch.equal(method.embedding(tokens, torch.tensor([7])), values[[7]])
    assert packed == [head]
    x = torch.randn(4, 64)
    for _ in range(2):
        assert torch.allclose(method.apply(tokens, x), x @ values.t(), atol=1e-4)
    assert packed == [head, tokens]
