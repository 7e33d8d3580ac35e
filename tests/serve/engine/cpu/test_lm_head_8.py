"""The output layer in 8 bits: close to the stored one, for the logits alone, and only where it was asked for."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.platforms import current_platform

from quantize.lm_head.rounding import GROUP, restore_table, round_table
from serve.engine.cpu import lm_head_8, plugin
from serve.engine.cpu.kernel_report import linear_kernels
from serve.engine.cpu.lora_compiled import CompiledPunicaWrapper
from serve.engine.cpu.lora_isolation import IsolatedPunicaWrapper
from tests.serve.engine.cpu.lora_batch import expected_output, make_layer, make_wrapper

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the mends are for vLLM's CPU platform")

ROWS, COLUMNS = 320, 192


@pytest.fixture(autouse=True)
def methods_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo whatever a test installs."""
    for name in ("process_weights_after_loading", "apply", "embedding"):
        monkeypatch.setattr(UnquantizedEmbeddingMethod, name, UnquantizedEmbeddingMethod.__dict__[name])


def table(*, columns: int = COLUMNS, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    values = torch.randn(ROWS, columns, generator=torch.Generator().manual_seed(0))
    values[7] = 0  # as rows that fill a vocabulary up
    return values.to(dtype)


def embedding(values: torch.Tensor) -> torch.nn.Module:
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(values, requires_grad=False)
    return layer


def output(values: torch.Tensor, *, ranks: int = 1) -> torch.nn.Module:
    """An output layer without vLLM's parallel state."""
    layer = ParallelLMHead.__new__(ParallelLMHead)
    torch.nn.Module.__init__(layer)
    layer.weight = torch.nn.Parameter(values, requires_grad=False)
    layer.bias, layer.tp_size, layer.quant_method = None, ranks, UnquantizedEmbeddingMethod()
    return layer


def loaded(*layers: torch.nn.Module) -> UnquantizedEmbeddingMethod:
    lm_head_8.install()
    lm_head_8.install()
    method = UnquantizedEmbeddingMethod()
    for layer in layers:
        method.process_weights_after_loading(layer)
    return method


def bound(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Half a scale for each weight, times the activation beside it; float64."""
    half = values.double().reshape(ROWS, -1, GROUP).abs().amax(-1) / 127 / 2
    return x.double().abs().reshape(*x.shape[:-1], -1, GROUP).sum(-1) @ half.t()


@pytest.mark.parametrize("num_tokens", [1, 3, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_within_half_a_scale_a_weight_and_are_those_of_the_rounded_table(num_tokens, dtype):
    values = table(dtype=dtype)
    head = output(values.clone())
    x = torch.randn(num_tokens, COLUMNS).to(dtype)
    bias = torch.randn(ROWS).to(dtype)
    logits = loaded(head).apply(head, x, bias)
    assert (logits.dtype, tuple(logits.shape)) == (dtype, (num_tokens, ROWS))
    product = x.double() @ values.double().t()
    exact = product + bias.double()
    rounded = x.double() @ restore_table(*round_table(values)).double().t() + bias.double()
    # The output itself is rounded, before and after the bias.
    sums = 2**-7 * (product.abs() + bias.double().abs()) if dtype == torch.bfloat16 else 0
    assert ((logits.double() - exact).abs() <= bound(x, values) + sums + 1e-4).all()
    assert ((logits.double() - rounded).abs() <= sums + 1e-4).all()
    assert not torch.equal(rounded, exact)


def test_a_tied_embedding_is_looked_up_as_it_was_stored():
    values = table()
    tokens, head = embedding(values.clone()), output(values)
    head.weight = tokens.weight
    method = loaded(tokens, head)
    assert head.weight is tokens.weight
    assert torch.equal(method.embedding(tokens, torch.tensor([3, 319])), table()[[3, 319]])
    assert not hasattr(head, "cpu_linear")  # no copy in oneDNN's layout beside the bytes
    x = torch.randn(2, 5, COLUMNS)
    assert method.apply(head, x).shape == (2, 5, ROWS)


def test_a_model_that_multiplies_by_its_embedding_is_rounded_when_it_first_does():
    values = table()
    tokens = embedding(values)
    method = loaded(tokens)
    x = torch.randn(4, COLUMNS)
    expected = x.double() @ restore_table(*round_table(values)).double().t()
    for _ in range(2):
        assert torch.allclose(method.apply(tokens, x).double(), expected, atol=1e-4)
    assert torch.equal(method.embedding(tokens, torch.tensor([3])), values[[3]])


@pytest.mark.parametrize("wrapper_class", [IsolatedPunicaWrapper, CompiledPunicaWrapper])
def test_adapters_on_lm_head_add_to_the_rounded_logits(wrapper_class):
    values = table()
    head = output(values)
    loaded(head)
    layer = make_layer([4, 2], COLUMNS, (ROWS,), max_rank=4)
    slots = [-1, 1, 0, 1]
    x = torch.randn(len(slots), COLUMNS)
    processor = SimpleNamespace(head_dtype=None)  # vLLM's adapters ask its own method for the base's logits
    logits = LogitsProcessor._apply_head(processor, head, x, None)
    plain = logits.clone()
    make_wrapper(wrapper_class, slots, 2, is_prefill=False).add_lora_logits(
        logits, x, layer.a[0], layer.b[0], 1.0
    )
    rounded = (x.double() @ restore_table(*round_table(values)).double().t()).float()
    assert torch.allclose(logits.double(), expected_output(rounded, x, layer, slots), atol=1e-3)
    assert torch.equal(logits[0], plain[0])
    assert not torch.allclose(logits[1:], plain[1:], atol=0.1)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (output(table(), ranks=2), "sharded over 2 ranks"),
        (output(table(columns=72)), "72 columns are no multiple of 32"),
        (output(table().fill_(float("nan"))), "no finite numbers"),
    ],
    ids=["sharded", "width", "broken"],
)
def test_what_cannot_be_rounded_keeps_its_product_and_the_log_says_why(head, reason, caplog):
    with caplog.at_level(logging.WARNING):
        method = loaded(head)
    x = torch.randn(3, head.weight.shape[1])
    assert torch.allclose(method.apply(head, x), x @ head.weight.t(), atol=1e-4, equal_nan=True)
    assert reason in caplog.text


def test_the_worker_tells_what_the_copy_takes_or_why_there_is_none(caplog):
    model = torch.nn.ModuleDict({"tokens": embedding(table()), "head": output(table())})
    with caplog.at_level(logging.INFO):
        loaded(*model.values())
    [(told, number)] = linear_kernels(SimpleNamespace(get_model=lambda: model)).items()
    assert number == 1
    assert told.startswith("output layer in 8 bits (0.1 MiB beside the stored table)[")
    assert "output layer in 8 bits (0.1 MiB beside the stored table)" in caplog.text
    sharded = output(table(), ranks=2)
    loaded(sharded)
    assert lm_head_8.describe(sharded) == "output layer as stored, because it is sharded over 2 ranks"


@pytest.mark.parametrize(("bits", "is_rounded"), [(None, False), ("8", True)])
def test_all_parts_leave_the_stored_table_alone_unless_8_bits_are_asked_for(monkeypatch, bits, is_rounded):
    monkeypatch.setattr(plugin, "_MODULES", {})
    monkeypatch.setattr(plugin, "_use_punica_wrapper", lambda _: None)
    monkeypatch.setenv(plugin.PATCHES_VARIABLE, "all" if bits != "8" else "")
    if bits is None:
        monkeypatch.delenv(lm_head_8.BITS_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(lm_head_8.BITS_VARIABLE, bits)
    plugin.register()
    head, method = output(table()), UnquantizedEmbeddingMethod()
    method.process_weights_after_loading(head)
    assert hasattr(head, "cpu_linear") != is_rounded


def test_an_unverified_vllm_keeps_its_own_product(monkeypatch, caplog):
    import vllm

    monkeypatch.setenv(plugin.PATCHES_VARIABLE, "")
    monkeypatch.setenv(lm_head_8.BITS_VARIABLE, "8")
    monkeypatch.setattr(vllm, "__version__", "0.99.0")
    before = UnquantizedEmbeddingMethod.apply
    with caplog.at_level(logging.WARNING):
        plugin.register()
    assert UnquantizedEmbeddingMethod.apply is before
    assert "0.99.0 is not verified with --lm-head-bits" in caplog.text
