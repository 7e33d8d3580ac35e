"""What the manifest and the model card say about the training of an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.data.prepare import PreparedData
from adapters.data.source import DataSource
from adapters.training.outcome import TrainOutcome
from adapters.training.settings import TrainSettings


def manifest_record(
    outcome: TrainOutcome, prepared: PreparedData, settings: TrainSettings, sources: Sequence[DataSource]
) -> dict[str, Any]:
    """What the manifest and the card say about the training; no paths of this machine."""
    hidden = {"home", "resume", "push", "base"}
    metrics: dict[str, Any] = {
        "steps": outcome.steps,
        "epochs": round(outcome.epochs, 3),
        "best_step": outcome.best_step,
        "end_reason": outcome.end_reason,
        "train_loss": outcome.train_loss,
        "seconds": round(outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens_per_second, 1),
    }
    for when, score in (("before", outcome.before), ("after", outcome.after)):
        if score is not None:
            metrics[f"validation_perplexity_{when}"] = score.perplexity
            metrics[f"validation_token_accuracy_{when}"] = score.token_accuracy
    return {
        "data": {
            "fingerprint": prepared.fingerprint,
            "sources": [source.path.name for source in sources],
            "tasks": sorted({example.task for example in prepared.train}),
            "train_examples": outcome.num_train_examples,
            "validation_examples": outcome.num_validation_examples,
        },
        "settings": {
            **settings.model_dump(mode="json", exclude=hidden),
            "learning_rate": settings.peak_learning_rate,
            "precision": outcome.precision,
            "device": outcome.device,
        },
        "metrics": metrics,
        "notes": list(outcome.notes),
    }
