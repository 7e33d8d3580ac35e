"""The W8A8 kernel on layers as vLLM hands them over, and who is asked for which scheme."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear.scaled_mm.ScaledMMLinearKernel import Int8ScaledMMLinearLayerConfig
from vllm.platforms import PlatformEnum, current_platform

from bases.processor import read_cpuinfo
from serve.engine.cpu import lowbit_w8a8
from serve.engine.cpu.kernel_choice import (
    KERNELS_VARIABLE,
    KernelChoice,
    UnknownKernelChoiceError,
    kernel_choice,
)
from serve.engine.cpu.lowbit import ops
from serve.engine.cpu.lowbit_w8a8 import HotswapW8A8LinearKernel

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the kernel is for vLLM's CPU platform")

NAMES = ["weight", "weight_scale", "input_scale", "input_zero_point", "azp_adj"]
ROWS, COLUMNS = 48, 64


def config_of(*, static: bool = False, symmetric: bool = True, channelwise: bool = True):
    return Int8ScaledMMLinearLayerConfig(
        is_static_input_scheme=static, is_channelwise=channelwise, input_symmetric=symmetric
    )


def layer_of(scale: torch.Tensor) -> tuple[torch.nn.Module, torch.Tensor]:
    """A layer of random int8 weights and those weights times `scale`, which broadcasts over the columns."""
    layer = torch.nn.Module()
    weight = torch.randint(-127, 128, (ROWS, COLUMNS), dtype=torch.int8)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.weight_scale = torch.nn.Parameter(scale, requires_grad=False)
    layer.logical_widths = [16, 32]
    return layer, weight.double()


def as_rounded(x: torch.Tensor) -> torch.Tensor:
    """Inputs as compressed-tensors rounds them: a symmetric scale for each token."""
    rows = x.float()
    scale = rows.abs().amax(-1, keepdim=True) / 127.5
    return (torch.round(rows / scale).clamp(-128, 127) * scale).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channelwise", [True, False])
def test_it_equals_rounded_inputs_times_dequantised_weights(monkeypatch, dtype, channelwise):
    monkeypatch.setenv(KERNELS_VARIABLE, "hotswap")
    torch.manual_seed(0)
    scale = torch.rand(ROWS, 1) if channelwise else torch.rand(2)
    layer, weight = layer_of(scale)
    per_row = scale if channelwise else scale.repeat_interleave(torch.tensor([16, 32])).unsqueeze(1)
    kernel = HotswapW8A8LinearKernel(config_of(channelwise=channelwise), NAMES)
    kernel.process_weights_after_loading(layer)
    x = torch.randn(2, 3, COLUMNS).to(dtype)
    bias = torch.randn(ROWS).to(dtype)
    result = kernel.apply_weights(layer, x, bias)
    expected = as_rounded(x) @ (weight * per_row.double()).t() + bias.double()
    relative = 1e-5 if dtype == torch.float32 else 2**-7
    assert result.dtype == dtype
    assert torch.allclose(
        result.double(), expected, rtol=relative, atol=relative * float(expected.abs().max())
    )
    assert layer.weight.device.type == "cpu"  # where vLLM looks for the adapters' device


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("vnni", [True, False])
def test_without_vnni_every_layer_is_ours_and_with_it_where_compiled(monkeypatch, vnni, compiled):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    monkeypatch.setattr(ops, "available", lambda: "native" if compiled else "torch")
    ours = {}
    for choice in KernelChoice:
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        ours[choice.value] = HotswapW8A8LinearKernel.can_implement(config_of())[0]
    assert ours == {"auto": compiled or not vnni, "hotswap": True, "vllm": not vnni}


SUMS = """
import torch
import vllm._custom_ops as ops
a, b = (torch.randint(-127, 128, (32, 64), dtype=torch.int8) for _ in range(2))
result = torch.empty(32, 32)
handler = ops.create_onednn_scaled_mm(b.t(), torch.ones(32, 1), torch.float32, True, False, 32)
ops.onednn_scaled_mm(handler, a, result, torch.ones(32, 1), None, None, None)
print(float((result - a.float() @ b.float().t()).abs().max()))
"""


@pytest.mark.skipif("avx2" not in read_cpuinfo()[0], reason="vLLM's CPU build needs AVX2")
def test_vllms_sums_are_still_wrong_without_vnni():
    finished = subprocess.run(
        [sys.executable, "-c", SUMS],
        env={**os.environ, "HOTSWAP_CPU_ISA": "avx2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    gone = "vLLM mends this itself now: remove serve/engine/cpu/lowbit_w8a8.py and its entry"
    assert float(finished.stdout or "nan") > 1000, gone + finished.stderr[-2000:]


def test_schemes_with_fixed_scales_or_zero_points_of_the_inputs_stay_vllms(monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, "hotswap")
    assert HotswapW8A8LinearKernel.can_implement(config_of())[0]
    for config in (config_of(static=True), config_of(symmetric=False)):
        refused, reason = HotswapW8A8LinearKernel.can_implement(config)
        assert not refused
        assert "fixed scales or zero points" in str(reason)


def test_installed_it_is_asked_before_vllms_kernels(monkeypatch):
    stock = [
        kernel
        for kernel in linear._POSSIBLE_INT8_KERNELS[PlatformEnum.CPU]
        if kernel is not HotswapW8A8LinearKernel
    ]
    monkeypatch.setitem(linear._POSSIBLE_INT8_KERNELS, PlatformEnum.CPU, list(stock))
    lowbit_w8a8.install()
    lowbit_w8a8.install()
    assert linear._POSSIBLE_INT8_KERNELS[PlatformEnum.CPU] == [HotswapW8A8LinearKernel, *stock]


def test_an_unknown_choice_is_an_error_that_lists_the_known_ones(monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, "fast")
    with pytest.raises(
        UnknownKernelChoiceError, match="HOTSWAP_CPU_KERNELS=fast is not a choice; use auto, hotswap"
    ):
        kernel_choice()
    monkeypatch.setenv(KERNELS_VARIABLE, "")
    assert kernel_choice() == KernelChoice.AUTO


def test_a_model_in_float32_never_gets_the_kernel_that_takes_bfloat16_alone(monkeypatch):
    from vllm.model_executor.kernels.linear.scaled_mm import cpu

    monkeypatch.setattr(cpu, "check_cpu_sgl_kernel", lambda *_: True)  # a processor with AMX
    lowbit_w8a8.install()
    lowbit_w8a8.install()
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float32)
    assert not cpu.check_cpu_sgl_kernel(64, 128, torch.int8)
    assert cpu.check_cpu_sgl_kernel(64, 128, torch.bfloat16)
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.bfloat16)
    assert cpu.check_cpu_sgl_kernel(64, 128, torch.int8)
