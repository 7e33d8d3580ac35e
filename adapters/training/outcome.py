"""What a run came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

EndReason = Literal["all steps done", "no more gain", "time is up"]


@dataclass(frozen=True, slots=True)
class ValidationScore:
    """Over all learned tokens of the validation examples."""

    loss: float
    perplexity: float
    token_accuracy: float


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """Figures and folders of a finished run. Times in seconds."""

    name: str
    method: str
    base: str
    run_folder: Path
    adapter_folder: Path
    """Where the adapter lies: published, or in the run's folder where the method cannot be served."""
    digest: str | None
    """sha256 of the served adapter; None where the method cannot be served."""
    why_not_servable: str | None
    before: ValidationScore | None
    after: ValidationScore | None
    train_loss: float
    """Mean loss of the last tenth of the steps."""
    best_step: int
    steps: int
    epochs: float
    end_reason: EndReason
    num_train_examples: int
    num_validation_examples: int
    trained_parameters: int
    tokens: int
    seconds: float
    tokens_per_second: float
    precision: str
    device: str
    notes: tuple[str, ...]
    conversions: tuple[str, ...] = ()
    pushed: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        values = asdict(self)
        values["run_folder"], values["adapter_folder"] = str(self.run_folder), str(self.adapter_folder)
        return values
