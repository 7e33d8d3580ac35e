"""What making a recovery adapter came to."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from quantize.quality.figures import Figure, QualityFigures


class Distillation(BaseModel):
    """What the training did; divergences are means per token over the first and the last tenth of its steps.

    `best_step` is the one whose state was kept, 0 where training only made it worse.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int
    best_step: int
    tokens: int
    seconds: float
    divergence_at_start_nats: float
    divergence_at_end_nats: float
    end_reason: str


class RecoveryOutcome(BaseModel):
    """The figures, and where the adapter lies if it was worth publishing.

    `before` and `after` compare with the original on held-out rows, with the task adapter `with_adapter` on both
    sides where one was named. `gain_nats` is what the adapter took off the divergence per token, with the interval
    of a paired bootstrap over rows. `closed_form_share` is the share of the layers' squared output error that the
    closed form took away on the calibration rows, the mean over layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    folder: Path | None
    digest: str | None
    method: str
    rank: int
    with_adapter: str | None
    before: QualityFigures
    after: QualityFigures
    gain_nats: Figure
    closed_form_share: float | None
    distillation: Distillation | None
    num_rows: int
    seconds: float

    @property
    def published(self) -> bool:
        """Whether it paid."""
        return self.folder is not None

    @property
    def recovered_share(self) -> float:
        """Share of the divergence from the original that is gone; below 0 where there is more than before."""
        lost = self.before.mean_kl_nats.value
        return self.gain_nats.value / lost if lost > 0 else 0.0

    def describe(self) -> tuple[str, ...]:
        """Lines for the end of a command."""
        before, after = self.before, self.after
        lines = [
            f"divergence   {before.mean_kl_nats} -> {after.mean_kl_nats} nats per token "
            f"({self.recovered_share:.0%} recovered)",
            f"top-1        {before.top1_agreement} -> {after.top1_agreement}",
            f"perplexity   {before.quantised_perplexity} -> {after.quantised_perplexity} "
            f"(original {before.original_perplexity})",
        ]
        if self.folder is None:
            lines.append(
                f"not published: on {before.num_rows} held-out rows the divergence fell by {self.gain_nats} nats "
                "per token, which is not above its uncertainty; serve the quantised base without it"
            )
        return tuple(lines)
