"""LoRAX's and TGI's generate dialect: what may be asked and what is answered.

The clients of both always send every field. A field that cannot be honoured is taken at the value that asks for
nothing and refused at any other: nothing is ignored that would change an answer.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.config import JsonDict

from serve.engine.protocol import Constraint, Sampling
from serve.schemas.neutral import only
from serve.schemas.sampling import (
    MAX_LOGPROBS,
    MAX_REGEX_CHARS,
    MAX_SCHEMA_BYTES,
    MAX_SEQUENCES,
    MAX_STOPS,
    MAX_TOKENS,
    ModelReference,
    NonEmptyText,
    PlainText,
    StopText,
    StrictModel,
    small_schema,
)

BASE_NAMES = ("", "__base__")  # what LoRAX calls the base; so does leaving the adapter out


def _source(value: object) -> object:
    if isinstance(value, str) and value not in ("hub", "local"):
        raise ValueError(
            "no adapter is loaded from a request; load it through the admin API and name it in 'adapter_id'"
        )
    return value


_NO_MERGE = "adapters are not merged for a request; 'hotswap adapters compose' makes one of several"
_Nothing = Annotated[None, only(None, _NO_MERGE)]


class LoraxFormat(StrictModel):
    """LoRAX's structured output; without a schema any JSON object."""

    type: Literal["text", "json_object", "json_schema"]
    # `schema` would hide a method of pydantic's models.
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    @field_validator("json_schema")
    @classmethod
    def _small(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return small_schema(value) if value is not None else None

    @property
    def constraint(self) -> Constraint | None:
        """The engine's form."""
        if self.type == "text":
            return None
        if self.json_schema is None:
            return Constraint("json_object", "")
        return Constraint("json_schema", orjson.dumps(self.json_schema).decode())


class JsonGrammar(StrictModel):
    """TGI's structured output: a JSON schema, as an object or as its text."""

    type: Literal["json", "json_schema"]
    value: dict[str, Any] | Annotated[str, StringConstraints(min_length=2, max_length=MAX_SCHEMA_BYTES)]

    @field_validator("value")
    @classmethod
    def _schema(cls, value: dict[str, Any] | str) -> dict[str, Any]:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("the text is not a JSON schema") from None
            if not isinstance(value, dict):
                raise ValueError("the text is not a JSON schema")
        return small_schema(value)

    @property
    def constraint(self) -> Constraint:
        """The engine's form."""
        return Constraint("json_schema", orjson.dumps(self.value).decode())


class RegexGrammar(StrictModel):
    """TGI's structured output: a regular expression that the whole answer matches."""

    type: Literal["regex"]
    value: Annotated[PlainText, StringConstraints(min_length=1, max_length=MAX_REGEX_CHARS)]

    @property
    def constraint(self) -> Constraint:
        """The engine's form."""
        return Constraint("regex", self.value)


class LoraxParameters(StrictModel):
    """How to answer. Null means absent."""

    adapter_id: Literal["", "__base__"] | ModelReference | None = Field(
        None, description="Alias (`risk`) or pinned version (`risk@3f2a91c0`); absent: the base."
    )
    adapter_source: Annotated[Literal["hub", "local"], BeforeValidator(_source)] | None = Field(
        None, description="Taken and ignored: an adapter is loaded by the admin API, never by a request."
    )
    merged_adapters: _Nothing = Field(None, description="Cannot be asked for.")
    adapter_parameters: _Nothing = Field(None, description="Cannot be asked for.")
    api_token: Annotated[PlainText, StringConstraints(max_length=1024)] | None = Field(
        None, description="Taken and ignored: nothing is downloaded for a request."
    )
    best_of: Annotated[int, Field(ge=1, le=MAX_SEQUENCES)] | None = Field(
        None, description="Draw so many and answer with the likeliest per token."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="0: greedy.")
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    typical_p: Annotated[
        Annotated[float, Field(ge=1, le=1)] | None,
        only(1.0, "typical sampling is not offered; leave 'typical_p' out, or use 'top_p'"),
    ] = Field(None, description="Cannot be asked for; 1 is taken.")
    do_sample: bool | None = Field(
        None,
        description="Sample, at temperature 1 unless another is given. Default: if any field asks for it.",
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    ignore_eos_token: bool | None = None
    return_full_text: bool | None = Field(None, description="Put the prompt in front of the answer.")
    stop: Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="Texts that end the answer; the one that did stays at its end."
    )
    truncate: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = Field(
        None, description="Keep only so many tokens of the prompt, the last ones."
    )
    watermark: Annotated[Literal[False] | None, only(False, "watermarks are not offered")] = None
    details: bool | None = Field(None, description="Say why the answer ended, and its tokens.")
    decoder_input_details: Annotated[
        Literal[False] | None,
        only(False, "log probabilities of the prompt are not offered; leave 'decoder_input_details' out"),
    ] = None
    return_k_alternatives: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        None, description="LoRAX: so many of the likeliest tokens beside each token."
    )
    top_n_tokens: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        None, description="TGI: the same, in `top_tokens`."
    )
    apply_chat_template: bool | None = Field(
        None, description="The prompt is a user's message; put it through the base's chat template."
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    response_format: LoraxFormat | None = None
    grammar: Annotated[JsonGrammar | RegexGrammar, Field(discriminator="type")] | None = None

    @model_validator(mode="after")
    def _together(self) -> LoraxParameters:
        if self.num_sequences > 1 and not self.samples:
            raise ValueError("'best_of' above 1 needs sampling: set 'do_sample' or 'temperature'")
        if self.num_sequences > 1 and self.seed is not None:
            raise ValueError("'best_of' above 1 goes without 'seed'")
        if self.response_format is not None and self.grammar is not None:
            raise ValueError("give either 'response_format' or 'grammar'")
        return self

    @property
    def reference(self) -> str | None:
        """The adapter as the gateway names it; None: the base."""
        return None if self.adapter_id in BASE_NAMES else self.adapter_id

    @property
    def num_sequences(self) -> int:
        """Answers to draw."""
        return self.best_of or 1

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn; LoRAX and TGI are greedy unless a field asks for more."""
        if self.temperature == 0:
            return False
        warped = self.temperature not in (None, 1.0) or bool(self.top_k) or self.top_p not in (None, 1.0)
        return bool(self.do_sample) or warped

    @property
    def num_alternatives(self) -> int:
        """Likeliest tokens to name beside each token."""
        return max(self.return_k_alternatives or 0, self.top_n_tokens or 0)

    @property
    def constraint(self) -> Constraint | None:
        """What the answer must look like."""
        asked = self.response_format or self.grammar
        return asked.constraint if asked is not None else None

    def sampling(self, max_tokens: int, *, stream: bool) -> Sampling:
        """How to draw. The base's generation config plays no part in this dialect."""
        with_tokens = stream or self.details or self.num_sequences > 1
        return Sampling(
            n=self.num_sequences,
            max_tokens=max_tokens,
            temperature=self.temperature
            if self.samples and self.temperature is not None
            else float(self.samples),
            top_p=self.top_p or 1.0,
            top_k=self.top_k or 0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            stop=tuple(self.stop or ()),
            keep_stop=True,
            seed=self.seed,
            logprobs=self.num_alternatives if with_tokens else None,
            ignore_eos=bool(self.ignore_eos_token),
            constraint=self.constraint,
        )


_EXAMPLE: JsonDict = {
    "inputs": "The capital of France is",
    "parameters": {"max_new_tokens": 8, "details": True},
}


class _Body(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    inputs: NonEmptyText = Field(
        description="Raw text to continue. Special tokens in it are control tokens: in this dialect the client "
        "writes the template."
    )
    parameters: LoraxParameters | None = None

    @property
    def asked(self) -> LoraxParameters:
        """The parameters, or their defaults."""
        return self.parameters or LoraxParameters()


class LoraxBody(_Body):
    """`POST /lorax/generate`."""

    stream: Annotated[
        Literal[False] | None, only(False, "this route answers whole; /lorax/generate_stream streams")
    ] = None


class LoraxStreamBody(_Body):
    """`POST /lorax/generate_stream`, which streams whatever `stream` says, and `POST /lorax`, which asks it."""

    stream: bool | None = None


class LoraxAlternative(StrictModel):
    """One likely token."""

    id: int
    text: str
    logprob: float


class LoraxToken(LoraxAlternative):
    """One generated token."""

    special: bool
    alternative_tokens: list[LoraxAlternative] | None = None


class LoraxTopToken(LoraxAlternative):
    """One likely token as TGI shows it."""

    special: bool


class LoraxSequence(StrictModel):
    """One of the answers that `best_of` drew and did not choose."""

    generated_text: str
    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    generated_tokens: int
    seed: int | None
    prefill: list[LoraxAlternative]
    tokens: list[LoraxToken]
    top_tokens: list[list[LoraxTopToken]] | None = None


class LoraxDetails(StrictModel):
    """Why the answer ended, and its tokens."""

    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    prompt_tokens: int
    generated_tokens: int
    skipped_tokens: int
    seed: int | None
    prefill: list[LoraxAlternative]
    tokens: list[LoraxToken]
    top_tokens: list[list[LoraxTopToken]] | None = None
    best_of_sequences: list[LoraxSequence] | None = None


class LoraxAnswer(StrictModel):
    """A whole answer."""

    generated_text: str
    details: LoraxDetails | None = None


class LoraxInfo(StrictModel):
    """`GET /lorax/info`: what serves here."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_pipeline_tag: str
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_length: int
    max_total_tokens: int
    version: str


class LoraxErrorBody(StrictModel):
    """Every error of this dialect has this shape."""

    error: str
    error_type: str
