"""Every setting of `hotswap quantize`, once: its flags and `HOTSWAP_QUANTIZE_*` come from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bases.settings import BasesSettings
from bases.settings_faults import settings_faults
from quantize.errors import QuantizeSettingsError
from quantize.schemes.registry import SCHEMES

QUANTIZE_PREFIX = "HOTSWAP_QUANTIZE_"
DEFAULT_SCHEME = "gptq-w4a16"
# What counts where only the output layer is measured.
_MEASURING = frozenset(
    {"lm_head_bits", "data", "evaluation", "row_tokens", "held_out_rows", "seed", "base_revision", "home"}
)


class QuantizeSettings(BaseSettings):
    """Settings of one quantised base. Each description states the unit."""

    model_config = SettingsConfigDict(env_prefix=QUANTIZE_PREFIX, extra="forbid", frozen=True)

    # What is made
    scheme: str | None = Field(None, description=f"One of {', '.join(SCHEMES)}. Default: {DEFAULT_SCHEME}.")
    recipe: Path | None = Field(
        None, description="Recipe file of llm-compressor (YAML) in place of a scheme and its options."
    )
    group_size: int | None = Field(
        None,
        ge=1,
        description="Inputs that share a scale, in schemes with groups. "
        "Default: the largest of 128, 64 and 32 that divides every layer.",
    )
    asymmetric: bool = Field(False, description="Give 4-bit and 8-bit groups a zero point.")
    activation_order: str | None = Field(
        None, description="GPTQ: `static` rounds the columns of large inputs first, `none` from left to right. "
        "Default: static.",
    )  # fmt: skip
    store_dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="Number format of what stays unquantised: embeddings, norms, biases."
    )
    layout: Literal["compressed-tensors", "gptq"] = Field(
        "compressed-tensors",
        description="`gptq` writes the same numbers a second time, in <out>-gptq-layout, for servers that read no "
        "compressed-tensors.",
    )
    out: Path | None = Field(
        None, description="New folder for the base. Default: <home>/bases/made/<base>-<scheme>."
    )
    force: bool = Field(False, description="Replace the output folder if it exists.")

    # What it is calibrated and measured with
    data: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="File of examples to calibrate with, as for `hotswap train`; repeatable. "
        "Default: the shipped set.",
    )
    answers: Literal["reference", "own"] = Field(
        "reference",
        description="Answers of the shipped set: as written, or the base's `own`, which it gives first.",
    )
    evaluation: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="File of examples to measure with; repeatable. "
        "Default: a fifth of --data, or the shipped held-out part.",
    )
    samples: int = Field(64, ge=1, le=100_000, description="Calibration rows.")
    row_tokens: int = Field(256, ge=2, le=131_072, description="Length of a calibration row in tokens.")
    held_out_rows: int = Field(
        16, ge=1, le=10_000, description="Rows apart from the calibration that the result is measured on."
    )
    seed: int = Field(0, ge=0, description="Seed of the choice of rows.")

    # What else
    lm_head_bits: Literal[8] | None = Field(
        None,
        description="Make nothing: measure what the output layer in 8 bits costs this base, for `hotswap serve "
        "--lm-head-bits 8`.",
    )
    recover: bool = Field(
        False, description="Make an adapter that brings the quantised base back towards the original."
    )
    resume: bool = Field(True, description="Go on from the layers that an interrupted run of the same kept.")
    base_revision: str | None = Field(None, description="Hub revision of the base.")
    home: Path | None = Field(
        None, description="Folder for what Hotswap makes. Default: HOTSWAP_HOME, else ~/.cache/hotswap."
    )

    @field_validator("data", "evaluation", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("lm_head_bits", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        # A choice of numbers does not read the text that an environment variable holds.
        return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value

    @field_validator("out", "recipe")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("activation_order")
    @classmethod
    def _served_order(cls, value: str | None) -> str | None:
        if value in ("group", "dynamic"):
            raise ValueError(
                f"{value!r} stores an order beside the weights (g_idx), which vLLM 0.32 loads no more for "
                "compressed-tensors; `static` rounds in the same order and stores nothing"
            )
        if value not in (None, "static", "none"):
            raise ValueError(f"{value!r} is neither `static` nor `none`")
        return value

    @model_validator(mode="after")
    def _recipe_decides(self) -> QuantizeSettings:
        beside = [
            flag
            for flag, given in (
                ("--scheme", self.scheme is not None),
                ("--group-size", self.group_size is not None),
                ("--asymmetric", self.asymmetric),
                ("--activation-order", self.activation_order is not None),
            )
            if given
        ]
        if self.recipe is not None and beside:
            raise ValueError(f"--recipe decides what {', '.join(beside)} would; give one of the two")
        return self

    @model_validator(mode="after")
    def _measuring_makes_nothing(self) -> QuantizeSettings:
        idle = sorted(self.model_fields_set - _MEASURING)
        if self.lm_head_bits is not None and idle:
            flags = ", ".join("--" + name.replace("_", "-") for name in idle)
            raise ValueError(f"--lm-head-bits measures and makes nothing, so that {flags} decides nothing")
        return self

    @property
    def home_folder(self) -> Path:
        """Folder for what Hotswap makes, absolute."""
        return BasesSettings().home if self.home is None else self.home.expanduser().absolute()


def load_quantize_settings(**given: Any) -> QuantizeSettings:
    """Merge flags (`given`, None = not given), environment and defaults.

    Raises QuantizeSettingsError with one line per setting at fault.
    """
    try:
        return QuantizeSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = settings_faults(error, as_flags=True, whole="")
        raise QuantizeSettingsError(f"these settings cannot be used:\n{faults}") from None
