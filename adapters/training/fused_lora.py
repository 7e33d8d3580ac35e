"""A LoRA layer as one step of autograd: the same numbers with fewer passes over the activations.

PEFT computes `base(x) + lora_B(lora_A(x)) * scaling` from separate layers. The input is cast to the type of the
factors and back by autocast, and scaling, sum and the sum of both input gradients each go through all activations.
Here the low-rank part is added within the matrix products.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch


def fuse_lora(model: Any) -> int:
    """Let plain LoRA layers of a PEFT model compute in one step; gives their number.

    Parameters, names and results stay what they are. Layers that do more (dropout, DoRA, a bias in the factors,
    several adapters) and calls that do other things (adapters disabled or merged) go PEFT's way. Not for parameters
    that are gathered layer by layer (ZeRO-3, FSDP2): the factors' own layers are not called.
    """
    from peft.tuners.lora.layer import Linear

    num_fused = 0
    for module in model.modules():
        if type(module) is Linear and type(module.get_base_layer()) is torch.nn.Linear:
            module.forward = partial(_forward, module, module.forward)
            num_fused += 1
    return num_fused


def _forward(module: Any, original: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    names = module.active_adapters
    if args or kwargs or len(names) != 1 or not _is_plain(module, names[0]):
        return original(x, *args, **kwargs)
    name = names[0]
    base = module.get_base_layer()
    return _LoraLinear.apply(
        x,
        base.weight,
        base.bias,
        module.lora_A[name].weight,
        module.lora_B[name].weight,
        module.scaling[name],
    )


def _is_plain(module: Any, name: str) -> bool:
    if name not in module.lora_A:
        return False
    base, dropout = module.get_base_layer(), module.lora_dropout[name]
    return (
        not module.disable_adapters
        and not module.merged
        and name not in module.lora_variant
        and module.lora_B[name].bias is None
        and (isinstance(dropout, torch.nn.Identity) or not module.training or dropout.p == 0.0)
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
    )


class _LoraLinear(torch.autograd.Function):  # type: ignore[misc]
    """x [..., in] -> [..., out], gradients for x and both factors [rank, in] and [out, rank].

    Products run in autocast's type where it is on, else in that of x; factors and their gradients keep their own.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, down: Any, up: Any, scaling: float) -> Any:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            rows = x.reshape(-1, x.shape[-1]).to(dtype)
            inner = rows @ down.to(dtype).t()  # [N, rank]
            output = torch.nn.functional.linear(
                rows, weight.to(dtype), None if bias is None else bias.to(dtype)
            )
            output.addmm_(inner, (up * scaling).to(dtype).t())
        ctx.save_for_backward(rows, inner, weight, down, up)
        ctx.scaling, ctx.shape, ctx.input_dtype = scaling, x.shape, x.dtype
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None, Any, Any, None]:
        rows, inner, weight, down, up = ctx.saved_tensors
        dtype = rows.dtype
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = gradient.reshape(-1, gradient.shape[-1]).to(dtype)
            of_inner = gradient @ (up * ctx.scaling).to(dtype)
            of_up = (gradient.t() @ inner).to(up.dtype) * ctx.scaling
            of_down = (of_inner.t() @ rows).to(down.dtype)
            of_x = None
            if ctx.needs_input_grad[0]:
                of_x = gradient @ weight.to(dtype)
                of_x.addmm_(of_inner, down.to(dtype))
                of_x = of_x.to(ctx.input_dtype).view(ctx.shape)
        return of_x, None, None, of_down, of_up, None
