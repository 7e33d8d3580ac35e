"""What the manifest and the model card say about the making of a recovery adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantize.quality.figures import Figure, QualityFigures
from quantize.recovery.outcome import Distillation
from quantize.recovery.settings import RecoverySettings


def manifest_record(
    settings: RecoverySettings,
    *,
    original: str,
    base: str,
    rows: Sequence[Sequence[int]],
    with_adapter: str | None,
    before: QualityFigures,
    after: QualityFigures,
    gain: Figure,
    closed_form_share: float | None,
    distillation: Distillation | None,
) -> dict[str, Any]:
    """Data, settings, metrics and notes; no paths of this machine."""
    metrics: dict[str, Any] = {
        "held_out_rows": before.num_rows,
        "held_out_divergence_nats_before": before.mean_kl_nats.value,
        "held_out_divergence_nats_after": after.mean_kl_nats.value,
        "held_out_gain_nats": gain.model_dump(),
        "top1_agreement_before": before.top1_agreement.value,
        "top1_agreement_after": after.top1_agreement.value,
        "perplexity_original": before.original_perplexity.value,
        "perplexity_before": before.quantised_perplexity.value,
        "perplexity_after": after.quantised_perplexity.value,
        "closed_form_share": closed_form_share,
    }
    if distillation is not None:
        metrics["distillation"] = distillation.model_dump()
    return {
        "data": {
            "original": original,
            "rows": len(rows),
            "row_tokens": len(rows[0]),
            "with_adapter": with_adapter,
        },
        "settings": settings.model_dump(mode="json", exclude={"recover_with"}),
        "metrics": metrics,
        "notes": [
            f"brings {base} nearer to {original}; it holds no task of its own, and is joined with a task adapter "
            "by `hotswap adapters compose`"
        ],
    }
