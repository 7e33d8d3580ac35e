"""How much memory a run will need, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.training.loss import MAX_LOGITS_BYTES
from adapters.training.settings import ALL_LINEAR, TrainSettings
from bases.architecture import ArchitectureFacts

_ADAM_BYTES = 16  # of a trained number: itself, its gradient and two moments in float32
# Numbers kept per token and layer for the backward pass, in hidden sizes: inputs of the projections, output of
# the attention, two norms; and in widths of the feed-forward part: its three products.
_KEPT_OF_HIDDEN = 10
_KEPT_OF_INNER = 4
_LIBRARIES_BYTES = 600 * 1024**2


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes by purpose; a rough figure that is right within a third where it was checked (docs/training.md)."""

    base_bytes: int
    trained_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it, the libraries too."""
        return self.base_bytes + self.trained_bytes + self.activation_bytes + _LIBRARIES_BYTES

    def __str__(self) -> str:
        gib = 1024**3
        return (
            f"{self.total_bytes / gib:.1f} GiB (base {self.base_bytes / gib:.1f}, trained weights with gradients "
            f"and moments {self.trained_bytes / gib:.1f}, activations {self.activation_bytes / gib:.1f})"
        )


def estimate_memory(
    facts: ArchitectureFacts,
    settings: TrainSettings,
    *,
    bytes_per_number: int,
    tokens_per_part: int,
    checkpointing: bool,
    num_processes: int = 1,
) -> MemoryEstimate:
    """Memory of one process of `num_processes` that work on this machine's memory together."""
    adapted = [
        size
        for name, size in facts.linear_modules.items()
        if ALL_LINEAR in settings.targets or name.rpartition(".")[2] in settings.targets
    ]
    if settings.method == "full":
        trained = sum(inputs * outputs for inputs, outputs in adapted)
        numbers = facts.num_parameters - trained
    else:
        rank = settings.rank * (1.5 if settings.method == "adalora" else 1)
        trained = int(sum(rank * (inputs + outputs) for inputs, outputs in adapted))
        numbers = facts.num_parameters
    copies = 1 + (settings.ema_decay is not None)  # the best weights, the average
    inner = max((max(size) for size in facts.linear_modules.values()), default=facts.hidden_size)
    per_layer = _KEPT_OF_HIDDEN * facts.hidden_size + _KEPT_OF_INNER * inner
    layers = 1 if checkpointing else facts.num_layers
    activations = (
        tokens_per_part * bytes_per_number * (layers * per_layer + facts.num_layers * facts.hidden_size)
    )
    return MemoryEstimate(
        base_bytes=numbers * bytes_per_number * num_processes,
        trained_bytes=trained * (_ADAM_BYTES + 4 * copies) * num_processes,
        activation_bytes=(activations + 3 * MAX_LOGITS_BYTES) * num_processes,
    )
