"""Settings of the export, each defined once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ExportSettings(BaseSettings):
    """How a trained adapter is written, from keyword arguments or the environment (`HOTSWAP_EXPORT_...`)."""

    model_config = SettingsConfigDict(env_prefix="HOTSWAP_EXPORT_", extra="forbid", frozen=True)

    max_error: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description=(
            "Largest relative error (Frobenius norm, 0 to 1) of any module's change that a conversion may "
            "make; above it the export is refused. Plain LoRA, rsLoRA, rank patterns, PiSSA, OLoRA and "
            "AdaLoRA are exact and never come near it."
        ),
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description=(
            "Rank of what is written. Left out: the trained rank, or for conversions the smallest rank within "
            "max_error."
        ),
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Type of the written tensors. bfloat16 halves the file; its rounding counts as error.",
    )
    probe_cases: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Prompts in the probe file that the gateway replays after loading.",
    )
    probe_tokens: int = Field(
        default=8, ge=1, le=256, description="Tokens continued for each prompt of the probe file, at most."
    )
