"""The weight-only kernel on layers as vLLM hands them over, against their dequantised weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear.mixed_precision.cpu import CPUWNA16LinearKernel
from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import MPLinearLayerConfig
from vllm.model_executor.layers.quantization import auto_gptq
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig, AutoGPTQLinearMethod
from vllm.platforms import PlatformEnum, current_platform
from vllm.scalar_type import scalar_types

from serve.engine.cpu import lowbit_wna16
from serve.engine.cpu.kernel_choice import KERNELS_VARIABLE
from serve.engine.cpu.lowbit import ops
from serve.engine.cpu.lowbit_wna16 import HotswapWNA16LinearKernel, fits_lowbit

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the kernel is for vLLM's CPU platform")

TYPES = {
    (4, True): scalar_types.uint4b8,
    (4, False): scalar_types.uint4,
    (8, True): scalar_types.uint8b128,
    (8, False): scalar_types.uint8,
}


def config_of(
    num_rows: int,
    num_columns: int,
    *,
    bits: int = 4,
    symmetric: bool = True,
    group: int = 32,
    act_type: torch.dtype = torch.float32,
) -> MPLinearLayerConfig:
    return MPLinearLayerConfig(
        full_weight_shape=(num_columns, num_rows),
        partition_weight_shape=(num_columns, num_rows),
        weight_type=TYPES[bits, symmetric],
        act_type=act_type,
        group_size=group,
        zero_points=not symmetric,
    )


def parameter(data: torch.Tensor, **attributes: int) -> torch.nn.Parameter:
    made = torch.nn.Parameter(data, requires_grad=False)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def packed(values: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """int32 with the values of `dim` packed from the lowest bits up; short ends are filled with zeros."""
    rows = values.movedim(dim, -1).to(torch.int64)
    rows = torch.nn.functional.pad(rows, (0, -rows.shape[-1] % (32 // bits)))
    shifted = rows.unflatten(-1, (-1, 32 // bits)) << torch.arange(0, 32, bits)
    return shifted.sum(-1).to(torch.int32).movedim(-1, dim)


class Case:
    """Random values, scales and zeros of one layer, in the two layouts of checkpoints."""

    def __init__(self, config: MPLinearLayerConfig, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        num_columns, num_rows = config.partition_weight_shape
        self.config = config
        self.bits = config.weight_type.size_bits
        group = num_columns if config.group_size == -1 else config.group_size
        shape = (num_rows, num_columns // group)
        self.values = torch.randint(0, 2**self.bits, (num_rows, num_columns), generator=generator)
        self.scales = (torch.rand(shape, generator=generator) + 0.5).to(config.act_type)
        self.zeros = torch.randint(0, 2**self.bits, shape, generator=generator)
        if not config.zero_points:
            self.zeros = torch.full(shape, 2 ** (self.bits - 1))
        spread = self.zeros.repeat_interleave(group, 1), self.scales.repeat_interleave(group, 1)
        self.weight = (self.values - spread[0]).double() * spread[1].double()

    def compressed_tensors(self) -> torch.nn.Module:
        layer = torch.nn.Module()
        layer.weight_packed = parameter(
            packed(self.values, self.bits, 1), input_dim=1, output_dim=0, packed_dim=1
        )
        layer.weight_scale = parameter(self.scales, input_dim=1, output_dim=0)
        if self.config.zero_points:
            zeros = packed(self.zeros, self.bits, 0)
            layer.weight_zero_point = parameter(zeros, input_dim=1, output_dim=0, packed_dim=0)
        return layer

    def gptq(self) -> torch.nn.Module:
        layer = torch.nn.Module()
        layer.qweight = parameter(
            packed(self.values.t(), self.bits, 0), input_dim=0, output_dim=1, packed_dim=0
        )
        layer.scales = parameter(self.scales.t().contiguous(), input_dim=0, output_dim=1)
        zeros = packed(self.zeros.t(), self.bits, 1)
        layer.qzeros = parameter(zeros, input_dim=0, output_dim=1, packed_dim=1)
        return layer

    def serve(self, layer: torch.nn.Module, *names: str) -> HotswapWNA16LinearKernel:
        kernel = HotswapWNA16LinearKernel(self.config, *names)
        kernel.process_weights_after_loading(layer)
        return kernel


COMPRESSED_TENSORS = ("weight_packed", "weight_scale", "weight_zero_point")
GPTQ = ("qweight", "scales", "qzeros")


def close(result: torch.Tensor, case: Case, x: torch.Tensor, bias: torch.Tensor | None) -> bool:
    expected = x.double() @ case.weight.t() + (0 if bias is None else bias.double())
    bound = x.double().abs() @ case.weight.abs().t() + 1
    relative = 1e-5 if result.dtype == torch.float32 else 2**-7
    return result.dtype == x.dtype and bool(((result.double() - expected).abs() <= relative * bound).all())


@settings(max_examples=40, deadline=None)
@given(
    num_rows=st.sampled_from([8, 24, 32, 96]),
    num_columns=st.sampled_from([32, 64, 96, 160]),
    bits=st.sampled_from([4, 8]),
    symmetric=st.booleans(),
    group=st.sampled_from([-1, 32]),
    act_type=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    has_bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_scheme_equals_its_dequantised_weights(
    num_rows, num_columns, bits, symmetric, group, act_type, has_bias, seed
):
    config = config_of(num_rows, num_columns, bits=bits, symmetric=symmetric, group=group, act_type=act_type)
    case = Case(config, seed)
    layer = case.compressed_tensors()
    kernel = case.serve(layer, *COMPRESSED_TENSORS)
    x = torch.randn(2, 3, num_columns).to(act_type)
    bias = torch.randn(num_rows).to(act_type) if has_bias else None
    assert close(kernel.apply_weights(layer, x, bias), case, x, bias)


@pytest.mark.parametrize("bits", [4, 8])
def test_gptqs_layout_is_read_as_well_and_its_zeros_are_dropped(bits):
    case = Case(config_of(32, 64, bits=bits))
    layer = case.gptq()
    kernel = case.serve(layer, *GPTQ)
    x = torch.randn(5, 64)
    assert close(kernel.apply_weights(layer, x), case, x, None)
    assert layer.qzeros is None


def test_awqs_layout_with_zeros_along_the_rows_is_read_as_well():
    case = Case(config_of(32, 64, symmetric=False))
    layer = case.gptq()  # what AutoAWQMarlinLinearMethod makes of it
    kernel = case.serve(layer, *GPTQ)
    x = torch.randn(5, 64)
    assert close(kernel.apply_weights(layer, x), case, x, None)


def test_a_shape_that_the_kernels_do_not_have_is_dequantised_and_the_log_says_so(caplog):
    case = Case(config_of(24, 40, group=8, symmetric=False))
    assert not fits_lowbit(4, 40, 8)
    layer = case.compressed_tensors()
    kernel = case.serve(layer, *COMPRESSED_TENSORS)
    x = torch.randn(5, 40)
    assert close(kernel.apply_weights(layer, x), case, x, None)
    assert "4-bit layer of 24 x 40 is dequantised to float32" in caplog.text


def test_the_weights_take_no_more_room_than_their_bits():
    case = Case(config_of(512, 512, group=64))
    layer = case.compressed_tensors()
    before = layer.weight_packed.data_ptr()
    case.serve(layer, *COMPRESSED_TENSORS)
    held = sum(tensor.numel() * tensor.element_size() for tensor in layer.parameters())
    assert held <= 512 * 512 * (0.5 + 4 / 64)
    assert layer.weight_packed.data_ptr() != before


@pytest.fixture
def vllms_operator(monkeypatch: pytest.MonkeyPatch):
    """Says whether vLLM's operator is there, whatever this machine has."""

    def put(present: bool) -> None:
        operators = SimpleNamespace(**({"cpu_gemm_wna16": None} if present else {}))
        monkeypatch.setattr(torch.ops, "_C", operators)

    return put


def test_without_vllms_operator_every_layer_is_ours(vllms_operator, monkeypatch):
    vllms_operator(False)
    monkeypatch.setenv(KERNELS_VARIABLE, "vllm")
    for act_type in (torch.float32, torch.bfloat16):
        assert HotswapWNA16LinearKernel.can_implement(config_of(32, 64, act_type=act_type)) == (True, None)


@pytest.mark.parametrize("compiled", [True, False])
def test_where_vllms_kernel_works_ours_is_taken_where_it_was_compiled(vllms_operator, monkeypatch, compiled):
    monkeypatch.setattr(ops, "available", lambda: "native" if compiled else "torch")
    vllms_operator(True)
    works = config_of(32, 64, act_type=torch.bfloat16)
    assert CPUWNA16LinearKernel.can_implement(works)[0]
    for choice, ours in (("auto", compiled), ("vllm", False), ("hotswap", True)):
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        assert HotswapWNA16LinearKernel.can_implement(works)[0] is ours
    # float32 activations, 8 bits, rows that are no multiple of 32: vLLM's kernel has none of these.
    monkeypatch.setenv(KERNELS_VARIABLE, "auto")
    for config in (
        config_of(32, 64),
        config_of(32, 64, bits=8, act_type=torch.bfloat16),
        config_of(40, 64, act_type=torch.bfloat16),
    ):
        assert HotswapWNA16LinearKernel.can_implement(config)[0]


def test_groups_that_do_not_divide_the_columns_are_refused_with_the_reason():
    refused, reason = HotswapWNA16LinearKernel.can_implement(config_of(32, 96, group=64))
    assert not refused
    assert reason == "groups of 64 do not divide 96 columns"


def test_vllm_by_itself_still_says_that_it_can_where_it_cannot(vllms_operator):
    vllms_operator(False)
    gone = "vLLM mends this itself now: remove serve/engine/cpu/lowbit_wna16.py and its entry"
    assert CPUWNA16LinearKernel.can_implement(config_of(32, 64))[0], gone


def test_installed_it_is_asked_before_vllms_kernel(monkeypatch):
    stock = [
        kernel
        for kernel in linear._POSSIBLE_KERNELS[PlatformEnum.CPU]
        if kernel is not HotswapWNA16LinearKernel
    ]
    monkeypatch.setitem(linear._POSSIBLE_KERNELS, PlatformEnum.CPU, list(stock))
    for config in (AutoGPTQConfig, AutoAWQConfig):
        monkeypatch.setattr(config, "get_supported_act_dtypes", config.__dict__["get_supported_act_dtypes"])
    monkeypatch.setattr(auto_gptq, "verify_marlin_supported", auto_gptq.verify_marlin_supported)
    assert linear.choose_mp_linear_kernel(config_of(32, 64)) is CPUWNA16LinearKernel
    lowbit_wna16.install()
    lowbit_wna16.install()
    assert linear._POSSIBLE_KERNELS[PlatformEnum.CPU] == [HotswapWNA16LinearKernel, *stock]
    assert linear.choose_mp_linear_kernel(config_of(32, 64)) is HotswapWNA16LinearKernel
    assert torch.float32 in AutoGPTQConfig.get_supported_act_dtypes()
    assert torch.float32 in AutoAWQConfig.get_supported_act_dtypes()
    settings_of_8_bits = {"bits": 8, "group_size": 32, "desc_act": False, "sym": True}
    AutoGPTQLinearMethod(AutoGPTQConfig.from_config(settings_of_8_bits))
