"""Which layers of a base are adapted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from adapters.targets import left_out_modules, trainable_modules

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings
    from bases.architecture import ArchitectureFacts

_ALL_LINEAR = "all-linear"


def name_targets(
    settings: TrainSettings, facts: ArchitectureFacts, say: Callable[[str], None]
) -> TrainSettings:
    """The settings with the layers of "all-linear" named: PEFT means more by the word where experts are stacked."""
    if tuple(settings.targets) != (_ALL_LINEAR,):
        return settings
    names = tuple(trainable_modules(facts))
    left_out = left_out_modules(facts)
    if left_out:
        say(f"Adapting {', '.join(names)}")
    for reason in dict.fromkeys(left_out.values()):
        say(f"Left out: {reason}")
    return settings.model_copy(update={"targets": names})


def peft_targets(targets: Sequence[str]) -> str | list[str]:
    """PEFT's `target_modules`: its own word for all linear layers but the head, or names."""
    return _ALL_LINEAR if tuple(targets) == (_ALL_LINEAR,) else list(targets)


def target_layers(model: Any, targets: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """(name, layer) of the linear layers that `targets` means, the output head left out."""
    import torch

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        if tuple(targets) == (_ALL_LINEAR,) or name.rpartition(".")[2] in targets:
            yield name, module
