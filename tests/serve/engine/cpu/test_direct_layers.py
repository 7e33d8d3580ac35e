"""Linear layers with adapters and rotary embeddings: the short forward against vLLM's, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm.platforms import current_platform

from serve.engine.cpu import direct_attention, direct_linear, layer_paths

pytestmark = [
    pytest.mark.skipif(not current_platform.is_cpu(), reason="the parts are for vLLM's CPU platform"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]

IN_SIZE, OUT_SIZE = 6, 4


def eager_config() -> Any:
    """vLLM without a compiler, as the gateway starts it."""
    from vllm.config import CompilationConfig, CompilationMode, VllmConfig

    return VllmConfig(compilation_config=CompilationConfig(mode=CompilationMode.NONE, custom_ops=["all"]))


class Doubling:
    """A quantisation method of nobody's: twice the product."""

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        product = x @ layer.weight.T * 2
        return product if bias is None else product + bias


class AddingOne:
    """Stands for the LoRA operations: they change the product in place."""

    def add_lora_linear(self, y: torch.Tensor, *_: Any) -> None:
        y += 1


def make_layer(kind: str, *, bias: bool = True, skip_bias_add: bool = False, return_bias: bool = True) -> Any:
    """One of vLLM's LoRA layers around a base layer of these tests."""
    from vllm.lora import layers

    base = torch.nn.Module()
    base.weight = torch.nn.Parameter(torch.randn(OUT_SIZE, IN_SIZE))
    base.bias = torch.nn.Parameter(torch.randn(OUT_SIZE)) if bias else None
    base.skip_bias_add, base.return_bias, base.quant_method = skip_bias_add, return_bias, Doubling()
    base.gather_output = base.input_is_parallel = base.reduce_results = True
    layer = torch.nn.Module.__new__(getattr(layers, kind))
    torch.nn.Module.__init__(layer)
    layer.base_layer, layer.tp_size, layer.tp_rank = base, 1, 0
    layer._enable_aux_cuda_stream = False
    layer.punica_wrapper = AddingOne()
    layer.lora_a_stacked = layer.lora_b_stacked = ()
    layer.output_slices = (OUT_SIZE,)
    return layer


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one is other or torch.equal(one, other)


@pytest.mark.parametrize("kind", ["ColumnParallelLinearWithLoRA", "RowParallelLinearWithLoRA"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("skip_bias_add", [True, False])
@pytest.mark.parametrize("return_bias", [True, False])
def test_a_linear_layer_gives_what_vllm_gives(kind, bias, skip_bias_add, return_bias):
    torch.manual_seed(0)
    layer = make_layer(kind, bias=bias, skip_bias_add=skip_bias_add, return_bias=return_bias)
    forward = direct_linear.shorten(layer)
    assert forward is not None
    for x in (torch.randn(3, IN_SIZE), torch.randn(1, 3, IN_SIZE)):
        assert same(forward(x), layer.forward(x))


def test_layers_over_several_ranks_and_unknown_ones_are_left_alone():
    layer = make_layer("RowParallelLinearWithLoRA")
    layer.tp_size = 2
    assert direct_linear.shorten(layer) is None
    assert direct_linear.shorten(make_layer("ReplicatedLinearWithLoRA")) is None
    # Its base layer has a forward that is not vLLM's own.
    assert direct_linear.shorten(make_layer("MergedColumnParallelLinearWithLoRA")) is None
    assert direct_linear.shorten(torch.nn.Linear(2, 2)) is None


def test_a_model_is_shortened_once_per_layer_and_given_back_whole():
    torch.manual_seed(0)
    layer = make_layer("RowParallelLinearWithLoRA")
    model = torch.nn.Sequential(layer, torch.nn.Linear(2, 2))
    counts = layer_paths.shorten(model, [direct_attention.shorten, direct_linear.shorten])
    assert counts == {"RowParallelLinearWithLoRA": 1}
    x = torch.randn(2, IN_SIZE)
    shorter = layer(x)
    layer_paths.restore(model)
    assert layer.forward == type(layer).forward.__get__(layer)
    assert same(shorter, layer(x))


@pytest.mark.parametrize("is_neox_style", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_is_bit_for_bit_the_same(is_neox_style, dtype):
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    with set_current_vllm_config(eager_config()):
        embedding = get_rope(
            64,
            max_position=32,
            rope_parameters={"rope_theta": 10000.0, "rope_type": "default"},
            is_neox_style=is_neox_style,
        )
    forward = direct_attention.shorten(embedding)
    assert forward is not None
    torch.manual_seed(0)
    query, key, positions = torch.randn(7, 256).to(dtype), torch.randn(7, 64).to(dtype), torch.arange(7)
    for _ in range(2):  # in the first call vLLM may have to convert its table
        found = forward(positions, query.clone(), key.clone())
        assert same(found, embedding.forward_cpu(positions, query.clone(), key.clone()))
    three = query.view(7, 4, 64)
    assert same(
        forward(positions, three.clone(), key.clone().view(7, 1, 64))[0],
        embedding(positions, three.clone(), key.clone().view(7, 1, 64))[0],
    )


def test_rotations_with_a_forward_of_their_own_are_left_alone():
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    parameters = {
        "rope_theta": 10000.0,
        "rope_type": "deepseek_yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 32,
    }
    with set_current_vllm_config(eager_config()):
        embedding = get_rope(64, max_position=64, rope_parameters=parameters)
    assert type(embedding).__name__ == "DeepseekScalingRotaryEmbedding"
    assert direct_attention.shorten(embedding) is None


def test_what_comes_later_finds_shared_modules_shortened():
    """The rotary embedding is one for all layers, and the first layer's by order."""
    shared = torch.nn.Linear(2, 2)
    model = torch.nn.ModuleList([torch.nn.Sequential(shared), torch.nn.Sequential(shared)])
    held = []

    def inner(module: Any) -> Any:
        return (lambda x: x) if type(module) is torch.nn.Linear else None

    def outer(module: Any) -> Any:
        if type(module) is not torch.nn.Sequential:
            return None
        held.append("forward" in module[0].__dict__)
        return module.forward

    layer_paths.shorten(model, [inner, outer])
    assert held == [True, True]


class Scheme:
    """What carries a kernel in vLLM's compressed-tensors layers."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel


def low_bit_layer(kernel: Any, parameters: dict[str, torch.Tensor | None]) -> Any:
    """A row-parallel LoRA layer whose base layer is multiplied by `kernel`."""
    layer = make_layer("RowParallelLinearWithLoRA", bias=False)
    base = layer.base_layer
    for name, value in parameters.items():
        base.register_parameter(name, None if value is None else torch.nn.Parameter(value, False))
    base.scheme = Scheme(kernel)
    base.quant_method = type("Method", (), {"apply": staticmethod(kernel.apply_weights)})()
    return layer


def count_native_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Calls of the checked entrance to a kernel, which the short path leaves out."""
    from serve.engine.cpu.lowbit import ops

    calls: list[Any] = []
    entrance = getattr(ops, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return entrance(*args, **kwargs)

    monkeypatch.setattr(ops, name, counted)
    return calls


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_four_bit_layer_is_multiplied_by_the_kernel_itself(monkeypatch, dtype, asymmetric):
    from vllm.scalar_type import scalar_types

    from serve.engine.cpu.lowbit import ops
    from serve.engine.cpu.lowbit_wna16 import HotswapWNA16LinearKernel

    if ops.available() != "native":
        pytest.skip(f"without compiled kernels the short path is vLLM's: {ops.reason()}")
    generator = torch.Generator().manual_seed(0)
    rows, columns, group = 96, 128, 64
    values = torch.randint(0, 16, (rows, columns), dtype=torch.uint8, generator=generator)
    kernel = HotswapWNA16LinearKernel.__new__(HotswapWNA16LinearKernel)
    config = {
        "partition_weight_shape": (columns, rows),
        "weight_type": scalar_types.uint4,
        "group_size": group,
    }
    kernel.config = type("Config", (), config)()
    kernel.w_q_name, kernel.w_s_name, kernel.w_zp_name = "packed", "scale", "zero" if asymmetric else None
    kernel._is_packed = True
    zeros = torch.randint(0, 16, (rows, columns // group), dtype=torch.uint8, generator=generator)
    layer = low_bit_layer(
        kernel,
        {
            "packed": ops.pack_wna16(values, 4, group),
            "scale": torch.rand(rows, columns // group, generator=generator),
            "zero": zeros if asymmetric else None,
        },
    )
    forward = direct_linear.shorten(layer)
    assert forward is not None
    x = torch.randn(3, columns, generator=generator).to(dtype)
    calls = count_native_calls(monkeypatch, "linear_wna16")
    found = forward(x)
    assert not calls
    assert same(found, layer.forward(x))
    assert len(calls) == 1
    strided = torch.randn(3, 2 * columns, generator=generator).to(dtype)[:, :columns]
    assert same(forward(strided), layer.forward(strided))


def test_an_eight_bit_layer_is_multiplied_by_the_kernel_itself(monkeypatch):
    from serve.engine.cpu.lowbit import ops
    from serve.engine.cpu.lowbit_w8a8 import HotswapW8A8LinearKernel

    if ops.available() != "native":
        pytest.skip(f"without compiled kernels the short path is vLLM's: {ops.reason()}")
    generator = torch.Generator().manual_seed(0)
    rows, columns = 96, 128
    weight = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=generator)
    kernel = HotswapW8A8LinearKernel.__new__(HotswapW8A8LinearKernel)
    kernel.layer_param_names = ("packed", "scale", "", "", "")
    kernel._num_rows = rows
    layer = low_bit_layer(
        kernel, {"packed": ops.pack_w8a8(weight), "scale": torch.rand(rows, generator=generator)}
    )
    kernel._get_layer_params = lambda base: (base.packed, base.scale, None, None, None)
    forward = direct_linear.shorten(layer)
    assert forward is not None
    x = torch.randn(3, columns, generator=generator)
    calls = count_native_calls(monkeypatch, "linear_w8a8")
    found = forward(x)
    assert not calls
    assert same(found, layer.forward(x))
    assert len(calls) == 1
