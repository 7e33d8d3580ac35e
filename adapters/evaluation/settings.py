"""Every setting of `hotswap evaluate`, once: flags and `HOTSWAP_EVAL_*` environment variables come from here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from adapters.data.label_pattern import check_label_pattern
from adapters.errors import EvaluationError
from bases.settings import BasesSettings
from bases.settings_faults import settings_faults

EVALUATION_PREFIX = "HOTSWAP_EVAL_"
_THRESHOLD = re.compile(r"([a-z0-9_]+):(-?[0-9]+(?:\.[0-9]+)?)")


class EvaluationSettings(BaseSettings):
    """Settings of one evaluation. Each description states the unit."""

    model_config = SettingsConfigDict(env_prefix=EVALUATION_PREFIX, extra="forbid", frozen=True)

    # Who answers
    base: str = Field(
        "default",
        description="Base model: `default`, a folder or a hub id. With --url only its tokenizer is used.",
    )
    base_revision: str | None = Field(None, description="Hub revision of the base.")
    adapter: str | None = Field(
        None,
        description="Folder of a PEFT adapter, or a name published on this machine such as risk/ca967498; with "
        "--url an alias or pinned version. None: the base.",
    )
    url: str | None = Field(None, description="Ask the gateway at this address instead of transformers.")
    compare_base: bool = Field(True, description="Ask the base too, and give the difference.")
    home: Path | None = Field(
        None, description="Folder for converted bases. Default: HOTSWAP_HOME, else ~/.cache/hotswap."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number format with transformers; auto is float32 on CPU and bfloat16 on a GPU."
    )

    # What is asked
    columns: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Column map as field=column, as in `hotswap train`: `prompt=frage,completion=antwort`.",
    )
    chat: Literal["auto", "on", "off"] | None = Field(
        None, description="Whether prompt and answer are a conversation, as in `hotswap train`."
    )
    system: str | None = Field(None, description="System text for conversations that have none of their own.")
    max_examples: int | None = Field(None, ge=1, description="Ask so many examples, drawn with the seed.")
    max_new_tokens: int = Field(128, ge=1, le=32_768, description="Longest answer, in tokens.")
    batch_size: int = Field(32, ge=1, le=1024, description="Answers generated at once with transformers.")
    concurrency: int = Field(32, ge=1, le=1024, description="Requests sent at once to the gateway.")
    request_seconds: float = Field(
        600.0, gt=0, description="Longest wait for one answer of the gateway, retries included, in seconds."
    )
    seed: int = Field(0, ge=0, description="Seed of the draw of examples and of the bootstrap.")

    # How it is judged
    label_pattern: str | None = Field(
        None,
        description=r"Regex with one group that finds the label in an answer, e.g. `Risk: (\d)`. "
        "The last match counts. Default: the whole answer is the label.",
    )
    labels: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Labels from lowest to highest, comma-separated or repeated; makes them ordinal. "
        "Default: those in the data, ordinal where all are whole numbers.",
    )
    false_alarm: str | None = Field(
        None,
        description="What a false alarm is: `0-1:4-5` is a true label of 0 to 1 answered as 4 to 5.",
    )
    metrics: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Metrics by name, comma-separated or repeated. Default: all that the data allow."
    )
    bootstrap_samples: int = Field(
        1000, ge=100, le=100_000, description="Draws of the bootstrap behind the intervals."
    )

    # What comes out
    report: Path | None = Field(
        None, description="Write the report to this .html file, and .json and .md beside it."
    )
    force: bool = Field(False, description="Overwrite report files that exist.")
    worst_examples: int = Field(5, ge=0, le=1000, description="Examples shown for each kind of error.")
    fail_under: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Exit with 1 where the adapter misses `metric:value`, e.g. `accuracy:0.95`; a metric "
        "whose low values are good (false_alarms, perplexity) must not be above. Repeatable.",
    )

    @field_validator("columns", "labels", "metrics", "fail_under", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            return value
        return tuple(piece.strip() for part in parts for piece in part.split(",") if piece.strip())

    @field_validator("label_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        return check_label_pattern(value)

    @field_validator("labels")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"{','.join(value)!r} names a label twice")
        return value

    @field_validator("fail_under")
    @classmethod
    def _thresholds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            if _THRESHOLD.fullmatch(part) is None:
                raise ValueError(f"{part!r} is not `metric:value`, such as `accuracy:0.95`")
        return value

    @field_validator("report")
    @classmethod
    def _html(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix.lower() not in (".html", ".htm"):
            raise ValueError(
                f"{str(value)!r} does not end in .html; the .json and .md files get its name with their ending"
            )
        return value

    @model_validator(mode="after")
    def _somebody_answers(self) -> EvaluationSettings:
        if self.adapter is None and not self.compare_base:
            raise ValueError("--no-compare-base without --adapter leaves nobody to ask; name an adapter")
        return self

    @property
    def home_folder(self) -> Path:
        """Folder for converted bases, absolute."""
        return BasesSettings().home if self.home is None else self.home.expanduser().absolute()

    @property
    def thresholds(self) -> tuple[tuple[str, float], ...]:
        """`fail_under` as (metric, value)."""
        pairs = (part.partition(":") for part in self.fail_under)
        return tuple((name, float(value)) for name, _, value in pairs)


def load_evaluation_settings(**given: Any) -> EvaluationSettings:
    """Merge flags (`given`, None = not given), environment and defaults.

    Raises EvaluationError with one line per setting at fault.
    """
    try:
        return EvaluationSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = settings_faults(error, as_flags=True)
        raise EvaluationError(f"these settings cannot be used:\n{faults}") from None
