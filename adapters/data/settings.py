"""Every setting of data preparation, once: flags and `HOTSWAP_DATA_*` variables come from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from adapters.data.label_pattern import check_label_pattern
from adapters.data.shapes import FIELDS
from adapters.errors import DataError
from bases.settings_faults import settings_faults

ENV_PREFIX = "HOTSWAP_DATA_"


class DataSettings(BaseSettings):
    """How examples are read, cleaned and split. Each description states the unit; each step can be switched off."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    # Reading
    columns: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Column map as field=column, comma-separated or repeated: `prompt=frage,completion=antwort`. "
        f"Fields: {', '.join(FIELDS)}.",
    )
    chat: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Make prompt and answer a conversation: `on`, `off` (raw text), or `auto`: on for "
        "instructions and questions, off for prompt and completion.",
    )
    system: str | None = Field(
        None, description="System text put before every conversation that has none of its own."
    )
    label_pattern: str | None = Field(
        None,
        description="Regular expression with one group that finds the label in the answer where no column "
        r"gives it: `Risk: (\d)`.",
    )
    max_line_bytes: int = Field(
        1024**2,
        ge=64,
        description="Longest line, row or object accepted, in bytes. Longer ones are not parsed.",
    )
    skip_bad_lines: bool = Field(
        False, description="Leave out lines that are no examples, and count them, instead of stopping."
    )
    csv_delimiter: str | None = Field(
        None,
        description="Sign between the fields of CSV files. Default: found in the header; a tab for .tsv.",
    )

    # Cleaning
    clean_unicode: bool = Field(
        True, description="Mend broken Unicode and bring equal signs to one form (NFC)."
    )
    clean_html: bool = Field(True, description="Remove HTML tags and resolve entities.")
    clean_whitespace: bool = Field(
        True, description="Collapse runs of whitespace, and between Chinese signs remove it."
    )
    label_map: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Labels to rename as old=new, comma-separated or repeated: `hoch=5,niedrig=0`."
    )
    personal: Literal["warn", "redact", "off"] = Field(
        "warn",
        description="Personal data (mail, phone, card and id numbers): `warn`, `redact` (replace), or `off`.",
    )

    # Selecting
    length_filter: bool = Field(True, description="Leave out examples that are too short or too long.")
    min_characters: int = Field(1, ge=0, description="Shortest example kept, in characters of all its texts.")
    max_characters: int = Field(
        100_000, ge=1, description="Longest example kept, in characters of all its texts."
    )
    exact_duplicates: bool = Field(True, description="Remove examples that repeat an earlier one.")
    near_duplicates: Literal["minhash", "simhash", "off"] = Field(
        "minhash",
        description="Remove examples that nearly repeat an earlier one; how they are found, or `off`.",
    )
    near_duplicate_threshold: float = Field(
        0.85,
        gt=0,
        le=1,
        description="Similarity from which two examples are near-duplicates, as a share from 0 to 1.",
    )
    outliers: bool = Field(True, description="Flag (never remove) examples unlike all others, by TF-IDF.")
    outlier_quantile: float = Field(
        0.99, gt=0, lt=1, description="Share of the examples that is never flagged as outliers, from 0 to 1."
    )
    allow_one_class: bool = Field(False, description="Accept labelled examples that all have the same label.")

    # Splitting
    validation_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the examples held out for validation where none are given, 0 to 1.",
    )
    test_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the examples held out for the test where none are given, 0 to 1.",
    )
    validation_file: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Validation examples, `PATH` or `task=PATH`, comma-separated or repeated."
    )
    test_file: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Test examples, `PATH` or `task=PATH`, comma-separated or repeated."
    )
    stratify: bool = Field(True, description="Give every split the same share of each label.")
    leak_check: bool = Field(
        True, description="Remove training examples that nearly repeat a validation or test example."
    )
    seed: int = Field(0, ge=0, description="Seed of the split; the same data and seed give the same split.")

    @field_validator("columns", "label_map", "validation_file", "test_file", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            return value
        return tuple(part.strip() for item in given for part in str(item).split(",") if part.strip())

    @field_validator("columns")
    @classmethod
    def _known_fields(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in _pairs(value, "prompt=frage"):
            if name not in FIELDS:
                raise ValueError(
                    f"{name!r} is no field; fields are {', '.join(FIELDS)}, and come before the `=`"
                )
        return value

    @field_validator("label_map")
    @classmethod
    def _pairs_of_labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _pairs(value, "hoch=5")
        return value

    @field_validator("label_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        return check_label_pattern(value)

    @field_validator("csv_delimiter")
    @classmethod
    def _one_sign(cls, value: str | None) -> str | None:
        if value is None:
            return None
        sign = {"\\t": "\t", "tab": "\t"}.get(value, value)
        if len(sign) != 1 or sign in '"\r\n':
            raise ValueError(f"{value!r} is not one sign such as `;`, or `tab`")
        return sign

    @model_validator(mode="after")
    def _consistent(self) -> DataSettings:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"--validation-share {self.validation_share:g} and --test-share {self.test_share:g} leave "
                "nothing to train on; together they must be below 1"
            )
        if self.min_characters > self.max_characters:
            raise ValueError(
                f"--min-characters {self.min_characters} is above --max-characters {self.max_characters}"
            )
        return self

    @property
    def column_map(self) -> dict[str, str]:
        """Field to column."""
        return _pairs(self.columns, "prompt=frage")

    @property
    def label_mapping(self) -> dict[str, str]:
        """Old label to new label."""
        return _pairs(self.label_map, "hoch=5")


def load_data_settings(**given: Any) -> DataSettings:
    """Flags (`given`, None or empty = not given), environment, defaults. Raises DataError, one line per fault."""
    try:
        return DataSettings(
            **{name: value for name, value in given.items() if value is not None and value != []}
        )
    except ValidationError as error:
        faults = settings_faults(error, as_flags=True, whole="")
        raise DataError(f"these settings cannot be used:\n{faults}") from None


def _pairs(items: tuple[str, ...], example: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        left, sign, right = (part.strip() for part in item.partition("="))
        if not (left and sign and right):
            raise ValueError(f"{item!r} is not of the form `{example}`")
        if pairs.setdefault(left, right) != right:
            raise ValueError(f"{left!r} is given twice, as {pairs[left]!r} and as {right!r}")
    return pairs
