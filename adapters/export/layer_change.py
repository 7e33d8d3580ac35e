"""Reads the change that one tuned layer makes: as its factors where it has them, else as PEFT would merge it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from adapters.errors import ExportError, NotServableError
from adapters.export.factors import Factors, decompose
from adapters.export.trained import ModuleChange, ServedBase, on_cpu, oriented


def read_layer(
    module: str,
    layer: Any,
    adapter: str,
    base: ServedBase,
    *,
    mutates: bool,
    initial: Mapping[str, Factors] | None,
) -> ModuleChange:
    """What `adapter` makes of the tuned `layer`, which stands for `module` of the served base.

    `mutates` says that the initialisation changed the base under the layer; `initial` is the adapter as it was
    then, by module. Raises NotServableError, ExportError.
    """
    factors = _low_rank(layer, adapter)
    if factors is not None and not mutates:
        return ModuleChange(module, factors)

    def exact() -> Any:
        return _merged_weight(layer, adapter) - base.weight(module)

    if factors is None:
        return ModuleChange(module, None, exact)
    start = initial.get(module) if initial is not None else None
    if initial is not None and start is None:
        raise ExportError(
            f"The initial adapter has no weights for {module}, the trained one has. They belong to different runs."
        )
    if start is None:
        # What the initialisation took out of the base is of the trained rank: recover it from the weights.
        taken = base.weight(module) - oriented(layer.get_base_layer(), on_cpu(layer.get_base_layer().weight))
        start = decompose(taken, max_rank=factors.rank).factors(factors.rank)
    return ModuleChange(module, factors.minus(start), exact)


def _low_rank(layer: Any, adapter: str) -> Factors | None:
    """The layer's own factors, or None where what it computes is not `scale * b @ a`."""
    from peft.tuners.adalora.layer import SVDLinear
    from peft.tuners.lora.layer import Linear

    if isinstance(layer, SVDLinear):
        values = on_cpu(layer.lora_E[adapter]).reshape(-1, 1)
        # PEFT prunes by zeroing singular values; one is kept so that the module is in the file.
        kept = values.flatten().nonzero().flatten() if bool(values.any()) else slice(0, 1)
        return Factors(
            (on_cpu(layer.lora_A[adapter]) * values)[kept],
            on_cpu(layer.lora_B[adapter])[:, kept],
            float(layer.scaling[adapter]) / (float(layer.ranknum[adapter]) + 1e-5),
        )
    if not isinstance(layer, Linear):
        return None
    # MiCA only freezes a factor; every other variant computes something else.
    variant = layer.lora_variant.get(adapter)
    if variant is not None and type(variant).__name__ != "MiCALinearVariant":
        return None
    if layer.lora_bias.get(adapter) and bool(layer.lora_B[adapter].bias.any()):
        raise ExportError("A bias on LoRA B (lora_bias) was trained; the engine has none. Train without it.")
    return Factors(
        on_cpu(layer.lora_A[adapter].weight),
        on_cpu(layer.lora_B[adapter].weight),
        float(layer.scaling[adapter]),
    )


def _merged_weight(layer: Any, adapter: str) -> Any:
    """The weight (out, in) that `layer` acts with under the adapter, by PEFT's own merge, which is undone."""
    import torch

    if layer.merged:
        raise ExportError(
            "The adapter is merged into the model. Export it unmerged: model.unmerge_adapter()."
        )
    inner = layer.get_base_layer()
    kept = {name: value.detach().clone() for name, value in inner.named_parameters()}
    try:
        with torch.no_grad():
            layer.merge(adapter_names=[adapter])
            merged = oriented(inner, on_cpu(inner.weight)).clone()
            has_other_bias = "bias" in kept and not torch.equal(inner.bias, kept["bias"])
            with warnings.catch_warnings():  # some methods warn that taking the change out rounds
                warnings.simplefilter("ignore")
                layer.unmerge()
    except (NotImplementedError, ValueError, AttributeError, TypeError) as error:
        raise NotServableError(f"PEFT cannot turn {type(layer).__name__} into a weight: {error}") from error
    finally:  # it does round: put the very bits back
        for name, value in inner.named_parameters():
            value.data.copy_(kept[name])
    if has_other_bias:
        raise NotServableError(
            f"{type(layer).__name__} scales the layer's bias too, and the engine adapts weights alone. "
            "Leave layers with a bias out of target_modules."
        )
    return merged
