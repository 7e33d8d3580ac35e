"""Reads what a full fine-tune learned: the difference of its linear layers to the served base's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from adapters.errors import ExportError
from adapters.export.module_names import plain_name
from adapters.export.trained import ModuleChange, ServedBase, Trained, on_cpu, oriented

# What a parameter outside the linear layers may move, as a share of its norm: rounding, no more.
NEGLIGIBLE_CHANGE = 1e-6


def collect_difference(model: Any, *, linear_modules: Collection[str], base: ServedBase) -> Trained:
    """The changes that the fully trained `model` makes to the linear modules of the served base.

    Raises ExportError when anything else changed (norms, embeddings, biases), or nothing at all.
    """
    parameters = {plain_name(name): value for name, value in model.named_parameters(remove_duplicate=False)}
    weights = {f"{module}.weight": module for module in linear_modules}
    changes: list[ModuleChange] = []
    others: list[tuple[float, str]] = []
    for name, value in parameters.items():
        original = base.parameter(name)
        if original is None or original.shape != value.shape:
            raise ExportError(
                f"The trained model's {name} has shape {tuple(value.shape)}, the base's "
                f"{'is missing' if original is None else tuple(original.shape)}. It was trained on another base."
            )
        moved = float((on_cpu(value) - original).norm())
        if moved == 0.0:
            continue
        if name in weights:
            changes.append(_module_change(weights[name], value, base))
        else:
            others.append((moved / max(float(original.norm()), 1e-12), name))
    worst = sorted((change for change in others if change[0] > NEGLIGIBLE_CHANGE), reverse=True)
    if worst:
        shown = ", ".join(f"{name} by {share:.2%}" for share, name in worst[:4])
        raise ExportError(
            f"{len(worst)} parameters outside the linear layers changed ({shown}), and the engine adapts linear "
            "layers alone. Freeze norms, embeddings and biases in training."
        )
    if not changes:
        raise ExportError(
            "No linear layer differs from the base's: nothing was learned, or nothing was trained."
        )
    note = f"the difference of {len(changes)} fully trained linear layers to the base"
    return Trained(tuple(changes), None, (note,))


def _module_change(module: str, value: Any, base: ServedBase) -> ModuleChange:
    def exact() -> Any:
        return oriented(base.model.get_submodule(module), on_cpu(value)) - base.weight(module)

    return ModuleChange(module, None, exact)
