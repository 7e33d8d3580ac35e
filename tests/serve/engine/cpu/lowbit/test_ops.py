"""What the layers call: the same with and without the compiled kernels, and strict about its arguments."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from bases.processor import UnknownIsaError
from serve.engine.cpu.lowbit import library, ops, source
from serve.engine.cpu.lowbit.library import Kernels
from tests.serve.engine.cpu.lowbit.layers import Case, Layer

CASE = Case(3, 37, 192, 4, 64, True, True, torch.float32, 1.0, 0)


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where nothing was compiled."""
    monkeypatch.setattr(library, "_loaded", library.load(tmp_path))


@pytest.fixture
def by_kernels(monkeypatch: pytest.MonkeyPatch, compiled: Kernels) -> None:
    monkeypatch.setattr(library, "_loaded", compiled)


@pytest.mark.parametrize("way", ["by_torch", "by_kernels"])
@pytest.mark.parametrize(("bits", "group"), [(4, 64), (8, -1), (4, -1)])
def test_layers_of_few_bits(request: pytest.FixtureRequest, way: str, bits: int, group: int) -> None:
    request.getfixturevalue(way)
    layer = Layer.of(Case(3, 37, 192, bits, group, True, True, torch.float32, 1.0, 1))
    packed = ops.pack_wna16(layer.values, bits, group)
    layer.check(
        ops.linear_wna16(layer.x, packed, layer.scales, layer.zeros, layer.bias, n=37, bits=bits, group=group)
    )


@pytest.mark.parametrize("way", ["by_torch", "by_kernels"])
def test_layers_of_int8_and_of_bfloat16(request: pytest.FixtureRequest, way: str) -> None:
    request.getfixturevalue(way)
    torch.manual_seed(0)
    weight = torch.randint(-128, 128, (37, 70), dtype=torch.int8)
    x, scale, bias = torch.randn(3, 70), torch.rand(37, 1), torch.randn(37)
    exact = x @ (weight.float() * scale).t() + bias
    got = ops.linear_w8a8(x, ops.pack_w8a8(weight), scale, bias, n=37)
    torch.testing.assert_close(got, exact, rtol=0.05, atol=float(exact.abs().max()) * 0.01)
    stored = torch.randn(37, 70).bfloat16()
    torch.testing.assert_close(
        ops.linear_stored16(x, stored, bias), x @ stored.float().t() + bias, rtol=1e-4, atol=1e-4
    )


@pytest.mark.usefixtures("by_torch")
def test_what_was_packed_is_a_copy() -> None:
    weight = torch.ones(4, 64, dtype=torch.int8)
    packed = ops.pack_w8a8(weight)
    weight.zero_()
    assert bool((ops.linear_w8a8(torch.ones(1, 64), packed, torch.ones(4), None, n=4) > 0).all())


@pytest.mark.usefixtures("by_torch")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 3}, "4 or 8 bits"),
        ({"group": 40}, "groups of 40"),
        ({"group": 0}, "groups of 0"),
        ({"x": torch.ones(3, 190)}, "190 columns"),
        ({"x": torch.ones(3, 192).double()}, "float64"),
        ({"x": torch.ones(192)}, "not float32 or bfloat16"),
        ({"scales": torch.ones(37, 2)}, r"\(37, 2\), not torch.float32 \(37, 3\)"),
        ({"scales": torch.ones(37, 3).half()}, "scales are torch.float16"),
        ({"zeros": torch.ones(36, 3, dtype=torch.uint8)}, "zeros are"),
        ({"bias": torch.ones(36)}, "bias is"),
    ],
)
def test_arguments_that_do_not_fit_are_named(changes: dict[str, object], message: str) -> None:
    layer = Layer.of(CASE)
    arguments: dict[str, object] = {
        "x": layer.x,
        "packed": ops.pack_wna16(layer.values, 4, 64),
        "scales": layer.scales,
        "zeros": layer.zeros,
        "bias": layer.bias,
        "n": 37,
        "bits": 4,
        "group": 64,
    }
    with pytest.raises(ValueError, match=message):
        ops.linear_wna16(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.usefixtures("by_torch")
def test_weights_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(ValueError, match="go up to 16"):
        ops.pack_wna16(torch.full((2, 32), 16, dtype=torch.uint8), 4, 32)
    with pytest.raises(ValueError, match="int8"):
        ops.pack_wna16(torch.zeros(2, 32, dtype=torch.int8), 8, 32)
    with pytest.raises(ValueError, match="float32"):
        ops.pack_w8a8(torch.zeros(2, 32))


def test_without_a_library_pytorch_works_and_the_log_says_why_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path))
    monkeypatch.setattr(library, "_loaded", None)
    with caplog.at_level(logging.INFO, logger=library.__name__):
        assert ops.available() == "torch"
        assert ops.available() == "torch"
    assert "hotswap setup` builds it" in ops.reason()
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert ops.reason() in caplog.text


def test_a_broken_library_leaves_pytorch_in_its_place(tmp_path: Path) -> None:
    folder = source.library_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / source.LIBRARY_NAME).write_bytes(b"not a library")
    found = library.load(tmp_path)
    assert found.kind == "torch"
    assert "cannot be loaded" in found.reason


def test_the_simulated_processor_is_obeyed(compiled: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    from bases.settings import BasesSettings

    monkeypatch.setenv("HOTSWAP_CPU_ISA", "avx2")
    try:
        assert library.load(BasesSettings().home).isa == "avx2"
        monkeypatch.setenv("HOTSWAP_CPU_ISA", "sse2")
        with pytest.raises(UnknownIsaError):
            library.load(BasesSettings().home)
    finally:
        torch.ops.hotswap_lowbit.select(compiled.isa)
