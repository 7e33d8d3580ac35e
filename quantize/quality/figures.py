"""The figures of one comparison between an original base and its quantised form."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Figure(BaseModel):
    """A measured value and its 95 % bootstrap interval over rows; no interval where one row was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


class QualityFigures(BaseModel):
    """How far the quantised base is from the original. Every token of a row but the first is predicted.

    KL is from the original to the quantised base, sum of p_original * log(p_original / p_quantised), in nats per
    token. `base_rounding` is what the gateway holds a base against when it checks an adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_rows: int = Field(ge=1)
    num_tokens: int = Field(ge=1, description="Predicted tokens over all rows.")
    original_perplexity: Figure
    quantised_perplexity: Figure
    perplexity_ratio: Figure = Field(description="Quantised over original; 1 is no loss.")
    mean_kl_nats: Figure
    p99_kl_nats: Figure = Field(description="99th percentile over tokens.")
    top1_agreement: Figure = Field(description="Share of tokens at which both find the same one likeliest.")
    base_rounding: float | None = Field(
        default=None,
        ge=0,
        description=(
            "Root mean square difference of the log-odds of tokens that the original says greedily after the "
            "prompts; None: no prompts were given."
        ),
    )
    num_rounding_tokens: int = 0
    seconds: float = Field(ge=0)
