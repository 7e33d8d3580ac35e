"""Bounds that every generating route shares: an allow-list of fields, each with a cap the engine can bear."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    field_validator,
)

from serve.engine.protocol import Constraint

MAX_SEQUENCES = 16
MAX_TOKENS = 1_048_576
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_LOGPROBS = 20
MAX_CHOICES = 256
MAX_CHOICE_CHARS = 1024
MAX_REGEX_CHARS = 4096
MAX_SCHEMA_BYTES = 64 * 1024
MAX_REFERENCE_CHARS = 160


class _FirstFault(FailFast):
    """As pydantic's, and hashable, as members of a union have to be."""

    __hash__ = object.__hash__


# Of a list: its first fault is told alone. Telling each of a million takes the event loop for seconds.
FIRST_FAULT = _FirstFault()


def _plain_text(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character, which no tokenizer reads")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is not a character") from None
    return text


PlainText = Annotated[str, AfterValidator(_plain_text)]
NonEmptyText = Annotated[str, StringConstraints(min_length=1), AfterValidator(_plain_text)]
StopText = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS), AfterValidator(_plain_text)
]
RegexText = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_REGEX_CHARS), AfterValidator(_plain_text)
]
_Choice = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_CHOICE_CHARS), AfterValidator(_plain_text)
]
Choices = Annotated[list[_Choice], Field(min_length=1, max_length=MAX_CHOICES)]
ModelReference = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=MAX_REFERENCE_CHARS, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@:-]*$"
    ),
]


def small_schema(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema that can be handed on as text. Raises ValueError."""
    try:
        size = len(orjson.dumps(value))
    except orjson.JSONEncodeError as error:  # an integer beyond 64 bits
        raise ValueError(f"the schema cannot be read: {error}") from None
    if size > MAX_SCHEMA_BYTES:
        raise ValueError(f"the schema is larger than {MAX_SCHEMA_BYTES} bytes")
    return value


class StrictModel(BaseModel):
    """Unknown fields, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TextFormat(StrictModel):
    """No constraint."""

    type: Literal["text"]


class JsonObjectFormat(StrictModel):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(StrictModel):
    """A JSON schema in OpenAI's wrapping."""

    name: Annotated[str, StringConstraints(max_length=64)] = "answer"
    description: Annotated[str, StringConstraints(max_length=1024)] | None = None
    # `schema` would hide a method of pydantic's models.
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None

    @field_validator("json_schema")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        return small_schema(value)


class JsonSchemaFormat(StrictModel):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class RegexFormat(StrictModel):
    """Text that a regular expression matches whole."""

    type: Literal["regex"]
    regex: RegexText


class ChoiceFormat(StrictModel):
    """One of these texts, word for word."""

    type: Literal["choice"]
    choice: Choices


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat | ChoiceFormat, Field(discriminator="type")
]


def constraint_of(response_format: BaseModel | None) -> Constraint | None:
    """The engine's form of a response format."""
    match response_format:
        case JsonObjectFormat():
            return Constraint("json_object", "")
        case JsonSchemaFormat():
            return Constraint("json_schema", orjson.dumps(response_format.json_schema.json_schema).decode())
        case RegexFormat():
            return Constraint("regex", response_format.regex)
        case ChoiceFormat():
            return Constraint("choice", tuple(response_format.choice))
        case _:
            return None


class SamplingFields(StrictModel):
    """Sampling fields that /generate and the OpenAI routes have in common; null means absent."""

    n: Annotated[int, Field(ge=1, le=MAX_SEQUENCES)] | None = Field(
        None, description="Answers to draw for one prompt. Default 1."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None,
        description="0 is greedy. Default: the base's generation config; without one 0 (OpenAI routes: 1).",
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="Default 1: all tokens.")
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = Field(None, description="0 or -1: all tokens.")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="Default 0: off.")
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(None, description="Default 0: off.")
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(
        None, description="Default 0: off."
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None, description="Default 1: off."
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = Field(
        None, description="Makes sampling repeatable."
    )
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="Texts that end the answer; they are not part of it."
    )
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = Field(
        None, description="Tokens to generate at most."
    )
    ignore_eos: bool | None = Field(None, description="Go on to max_tokens; for load tests.")
    response_format: ResponseFormat | None = Field(None, description="What the answer must look like.")
    stream: bool | None = Field(None, description="Server-sent events as tokens come.")
