"""Every setting of the recovery adapter, once: flags of `hotswap quantize` and `HOTSWAP_RECOVERY_*`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

RECOVERY_PREFIX = "HOTSWAP_RECOVERY_"


class RecoverySettings(BaseSettings):
    """How the adapter that brings a quantised base back is made. Each description states the unit."""

    model_config = SettingsConfigDict(env_prefix=RECOVERY_PREFIX, extra="forbid", frozen=True)

    recover_method: Literal["closed-form", "distil", "both"] = Field(
        "both",
        description="`closed-form`: the best low-rank answer to each layer's rounding, in seconds; `distil`: "
        "trained on the original's next-token probabilities; `both`: distilled from the closed form on.",
    )
    recover_rank: int = Field(16, ge=1, le=512, description="Rank of the recovery adapter.")
    recover_minutes: float = Field(
        4.0, gt=0, description="Longest time for distilling in minutes; the learning rate is laid over it."
    )
    recover_steps: int | None = Field(
        None,
        ge=1,
        description="Optimiser steps of distilling at most. With enough minutes for them, the same seed gives the "
        "same adapter.",
    )
    recover_learning_rate: float = Field(
        5e-4, gt=0, description="Highest learning rate of distilling (AdamW, warm-up, then cosine to 0)."
    )
    recover_batch_tokens: int = Field(
        2048, ge=16, description="Tokens of calibration rows in one step of distilling."
    )
    recover_moment_tokens: int = Field(
        16_384, ge=16, description="Tokens of calibration rows that the closed form looks at, at most."
    )
    recover_with: str | None = Field(
        None,
        description="A task adapter of the original base, by folder or published name: recover what both bases say "
        "with it on top, instead of what they say alone.",
    )
    recover_seed: int = Field(0, ge=0, description="Seed of the order of rows and of the first values.")
    recover_name: str = Field("recovery", description="Name that the adapter is published under.")
