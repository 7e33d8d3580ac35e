"""Fields that vLLM adds to OpenAI's dialect and that are safe here: a client that comes from vLLM sends them on.

Not among them is what would let a client reach past the gateway (templates, embeddings, salts, priorities, ids of
requests), and `logprob_token_ids`, with which vLLM 0.32.0 takes the log probabilities of other requests in the
batch from them (serve/engine/vllm/scoring.py). docs/migration.md has the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from serve.engine.protocol import Constraint
from serve.schemas.chat_message import ShortText
from serve.schemas.neutral import only
from serve.schemas.sampling import (
    FIRST_FAULT,
    MAX_LOGPROBS,
    Choices,
    RegexText,
    SamplingFields,
    StopText,
    StrictModel,
    TextFormat,
    constraint_of,
    small_schema,
)

MAX_STOP_TOKENS = 64
MAX_ALLOWED_TOKENS = 1024
MAX_BAD_WORDS = 64
# vLLM bans each word with and without a space before it, and has room for 1024 tokens; a token is a byte at least.
MAX_BAD_WORD_BYTES = 512
MAX_TEMPLATE_VALUES = 16

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
_TemplateName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
# What the renderer is called with: the gateway's business, not a template's.
_RENDERERS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "processor_kwargs",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "self",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


def _few(values: Any) -> Any:
    if isinstance(values, dict) and len(values) > MAX_TEMPLATE_VALUES:  # before each has faults of its own
        raise ValueError(f"names {len(values)} values; at most {MAX_TEMPLATE_VALUES} are taken")
    return values


def _of_the_template(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        if name in _RENDERERS:
            raise ValueError(f"'{name}' is not the template's own; leave it out")
    return values


TemplateValues = Annotated[
    dict[_TemplateName, bool | int | float | ShortText | None],
    BeforeValidator(_few),
    AfterValidator(_of_the_template),
]


class StructuredOutputs(StrictModel):
    """What the answer must look like, in vLLM's words: one of these."""

    # `json` would hide a method of pydantic's models.
    json_schema: dict[str, Any] | str | None = Field(
        None, alias="json", description="A JSON schema, or the text of one."
    )
    json_object: Literal[True] | None = None
    regex: RegexText | None = None
    choice: Choices | None = None

    @field_validator("json_schema")
    @classmethod
    def _small(cls, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
        if isinstance(value, str):
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError:
                raise ValueError("is not the text of a JSON schema") from None
            if not isinstance(value, dict):
                raise ValueError("is not a JSON schema, which is an object")
        return small_schema(value) if value is not None else None

    @model_validator(mode="after")
    def _one_kind(self) -> StructuredOutputs:
        kinds = (self.json_schema, self.json_object, self.regex, self.choice)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("takes one of 'json', 'json_object', 'regex', 'choice'")
        return self

    @property
    def constraint(self) -> Constraint:
        """The engine's form of it."""
        if self.json_schema is not None:
            return Constraint("json_schema", orjson.dumps(self.json_schema).decode())
        if self.regex is not None:
            return Constraint("regex", self.regex)
        if self.choice is not None:
            return Constraint("choice", tuple(self.choice))
        return Constraint("json_object", "")


class ExtraFields(SamplingFields):
    """Fields of vLLM's that both routes have."""

    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKENS), FIRST_FAULT] | None = Field(
        None, description="Tokens that end the answer."
    )
    include_stop_str_in_output: bool | None = Field(
        None, description="The stop text that ended the answer stays at its end."
    )
    skip_special_tokens: bool | None = Field(
        None, description="false: the texts of special tokens are part of the answer."
    )
    spaces_between_special_tokens: bool | None = None
    bad_words: Annotated[list[StopText], Field(max_length=MAX_BAD_WORDS), FIRST_FAULT] | None = Field(
        None, description="Texts that the answer must not hold."
    )
    allowed_token_ids: (
        Annotated[list[TokenId], Field(min_length=1, max_length=MAX_ALLOWED_TOKENS), FIRST_FAULT] | None
    ) = Field(None, description="The answer is made of these tokens alone.")
    structured_outputs: StructuredOutputs | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        None, description="Log probabilities of the prompt's tokens, with that many rivals; not in a stream."
    )
    return_token_ids: bool | None = Field(None, description="Ids of prompt and answer beside the text.")
    return_tokens_as_token_ids: bool | None = Field(
        None, description="With log probabilities: tokens as `token_id:ID` in place of their text."
    )
    # What clients send that asks for nothing: the engine never hears of it.
    use_beam_search: Annotated[
        bool | None, only(False, "beam search is not offered; leave 'use_beam_search' out")
    ] = Field(None, exclude=True)
    priority: Annotated[
        int | None, only(0, "whose turn it is is the gateway's to say; leave 'priority' out")
    ] = Field(None, exclude=True)

    @field_validator("bad_words")
    @classmethod
    def _few_bytes(cls, value: list[str] | None) -> list[str] | None:
        num_bytes = sum(len(word.encode()) + 1 for word in value or ())
        if num_bytes > MAX_BAD_WORD_BYTES:
            raise ValueError(f"hold {num_bytes} bytes, one more for each word; at most {MAX_BAD_WORD_BYTES}")
        return value

    @model_validator(mode="after")
    def _extras_go_together(self) -> ExtraFields:
        if self.structured_outputs is not None and not isinstance(self.response_format, TextFormat | None):
            raise ValueError("'structured_outputs' and 'response_format' say the same; send one of them")
        if self.prompt_logprobs is not None and self.stream:
            raise ValueError("'prompt_logprobs' are not streamed; leave 'stream' out")
        return self

    @property
    def token_ids(self) -> Sequence[int]:
        """Token ids that the client names."""
        return [*(self.stop_token_ids or ()), *(self.allowed_token_ids or ())]

    @property
    def constraints(self) -> list[Constraint]:
        """Everything that the engine would compile."""
        if self.structured_outputs is not None:
            return [self.structured_outputs.constraint]
        constraint = constraint_of(self.response_format)
        return [constraint] if constraint is not None else []

    @property
    def tells_of_tokens(self) -> bool:
        """Whether the answer is to tell of tokens besides its text."""
        return self.prompt_logprobs is not None or bool(self.return_token_ids)
