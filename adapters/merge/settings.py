"""Settings of the merge, each defined once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class MergeSettings(BaseSettings):
    """How a merged base is written, from keyword arguments or the environment (`HOTSWAP_MERGE_...`)."""

    model_config = SettingsConfigDict(env_prefix="HOTSWAP_MERGE_", extra="forbid", frozen=True)

    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description=(
            "Type of the written weights. auto: that of the base. The merge itself is made in float32; what "
            "bfloat16 then rounds away is measured and said."
        ),
    )
    prompts: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Prompts whose greedy answers of the merged base are held against base and adapter.",
    )
    tokens: int = Field(default=16, ge=1, le=256, description="Tokens of each answer that is compared.")
