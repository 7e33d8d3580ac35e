"""`/v1/chat/completions` and `/v1/completions`: the allow-list in front of vLLM's own handlers.

vLLM's request models take fields that a client must never set (chat templates, embeddings, media, cache salts,
transfer parameters). Only what is named here, and in openai_extras.py, goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from serve.engine.protocol import Constraint
from serve.schemas.chat_message import ChatMessage, ShortText, ToolName
from serve.schemas.neutral import only
from serve.schemas.openai_extras import ExtraFields, TemplateValues, TokenId
from serve.schemas.sampling import (
    FIRST_FAULT,
    MAX_LOGPROBS,
    MAX_TOKENS,
    ChoiceFormat,
    ModelReference,
    NonEmptyText,
    PlainText,
    RegexFormat,
    StrictModel,
    small_schema,
)

MAX_MESSAGES = 1024
MAX_PROMPTS = 128
MAX_TOOLS = 64
MAX_LOGIT_BIAS = 300
MAX_PROMPT_LOGPROBS = 1_000_000  # some 200 MB
_CHARS_PER_TOKEN = 4

_TokenIds = Annotated[list[TokenId], Field(min_length=1), FIRST_FAULT]


class FunctionTool(StrictModel):
    """A function that the model may call."""

    name: ToolName
    description: Annotated[PlainText, StringConstraints(max_length=4096)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _small(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return small_schema(value) if value is not None else None


class Tool(StrictModel):
    """One tool."""

    type: Literal["function"]
    function: FunctionTool


class NamedFunction(StrictModel):
    """The function to call."""

    name: ToolName


class NamedTool(StrictModel):
    """This tool and no other."""

    type: Literal["function"]
    function: NamedFunction


class StreamOptions(StrictModel):
    """What a stream tells besides text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


def _default_tier(value: object) -> object:
    if value not in (None, "auto", "default"):
        raise ValueError("there is one service tier; leave 'service_tier' out")
    return value


class OpenAIFields(ExtraFields):
    """Fields that both routes have."""

    model: ModelReference = Field(description="The base, an alias, or a pinned version; see GET /v1/models.")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream_options: StreamOptions | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    user: ShortText | None = Field(
        None, description="The session that a canary sticks to where there is no X-Session-Id."
    )
    # What clients send that asks for nothing here: the engine never hears of it.
    store: Annotated[Literal[False] | None, only(False, "answers are not stored; leave 'store' out")] = Field(
        None, exclude=True
    )
    metadata: Annotated[
        Annotated[dict[str, str], Field(max_length=0)] | None,
        only({}, "answers are not stored, and have no metadata; leave it out"),
    ] = Field(None, exclude=True)
    service_tier: Annotated[Literal["auto", "default"] | None, BeforeValidator(_default_tier)] = Field(
        None, exclude=True, description="`auto` and `default` are taken: there is one."
    )
    safety_identifier: ShortText | None = Field(None, exclude=True, description="Taken and ignored.")
    prompt_cache_key: ShortText | None = Field(
        None,
        exclude=True,
        description="Taken and ignored: a prompt is found in the cache by how it begins.",
    )

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _few_token_ids(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_LOGIT_BIAS:
            raise ValueError(f"names {len(value)} tokens; at most {MAX_LOGIT_BIAS} are taken")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is None:
            return None
        if not all(key.isascii() and key.isdigit() and len(key) <= 9 for key in value):
            raise ValueError("has a key that is not a token id")
        return value

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> OpenAIFields:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' goes with 'stream': true")
        return self

    @model_validator(mode="after")
    def _prompt_logprobs_fit(self) -> OpenAIFields:
        """Each log probability of a prompt is an object of this process until the answer is out."""
        if self.likely_of_prompt is None:
            return self
        asked = self.num_prompt_tokens * (self.n or 1) * (self.likely_of_prompt + 1)
        if asked > MAX_PROMPT_LOGPROBS:
            named = "'echo' with 'logprobs'" if self.prompt_logprobs is None else "'prompt_logprobs'"
            raise ValueError(
                f"{named} would give about {asked:,} log probabilities of prompts, more than "
                f"{MAX_PROMPT_LOGPROBS:,}; send fewer or shorter prompts, or lower their number or 'n'"
            )
        return self

    @property
    def likely_of_prompt(self) -> int | None:
        """Likely tokens that are told beside each one of the prompt; None: nothing is told of it."""
        return self.prompt_logprobs

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts; of texts an estimate."""
        raise NotImplementedError

    @property
    def token_ids(self) -> Sequence[int]:
        """Token ids that the client names."""
        return [*super().token_ids, *(int(key) for key in self.logit_bias or ())]

    @property
    def asked_tokens(self) -> int | None:
        """Tokens of an answer that the client asked for."""
        return self.max_tokens

    @property
    def default_tokens(self) -> int | None:
        """Tokens of an answer when the client names no number; None: as many as fit."""
        return None

    def engine_body(
        self, engine_name: str, *, max_tokens: int | None = None, cache_salt: str | None = None
    ) -> dict[str, Any]:
        """The request for vLLM's handler, under the name that the engine knows.

        `max_tokens` bounds the answer where the client did not. Only requests with the same `cache_salt` share a
        prefix cache.
        """
        body = self.model_dump(by_alias=True, exclude_none=True, exclude={"user"})
        body["model"] = engine_name
        if max_tokens is not None and self.asked_tokens is None:
            body["max_tokens"] = min(max_tokens, self.default_tokens or max_tokens)
        if cache_salt is not None:
            body["cache_salt"] = cache_salt
        match self.response_format:
            case RegexFormat():
                body["structured_outputs"] = {"regex": body.pop("response_format")["regex"]}
            case ChoiceFormat():
                body["structured_outputs"] = {"choice": body.pop("response_format")["choice"]}
        return body


class ChatBody(OpenAIFields):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m-instruct",
                    "messages": [{"role": "user", "content": "What is the capital of France?"}],
                    "stream": stream,
                }
                for stream in (False, True)
            ]
        }
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES), FIRST_FAULT]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    include_reasoning: bool | None = Field(None, description="false: thoughts are left out of the answer.")
    chat_template_kwargs: TemplateValues | None = Field(
        None, description='What the base\'s template asks for, such as `{"enable_thinking": false}`.'
    )
    add_generation_prompt: bool | None = Field(
        None,
        description="false: the prompt ends with the last message, and the assistant's turn is not opened.",
    )
    continue_final_message: bool | None = Field(
        None, description="The last message goes on; with `add_generation_prompt` false."
    )
    modalities: Annotated[
        Annotated[list[Literal["text"]], Field(max_length=1)] | None,
        only(["text"], "answers are text; leave 'modalities' out"),
    ] = Field(None, exclude=True)

    @property
    def constraints(self) -> list[Constraint]:
        tools = [
            Constraint("json_schema", orjson.dumps(tool.function.parameters).decode())
            for tool in self.tools or ()
            if tool.function.parameters
        ]
        return [*super().constraints, *tools]

    @property
    def asked_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def texts(self) -> tuple[str, ...]:
        """What the client wrote, in order; parts of a message apart, calls and descriptions of tools too."""
        found = [text for message in self.messages for text in message.texts]
        for tool in self.tools or ():
            found.append(tool.function.description or "")
            found.append(orjson.dumps(tool.function.parameters or {}).decode())
        found += [value for value in (self.chat_template_kwargs or {}).values() if isinstance(value, str)]
        return tuple(text for text in found if text)

    @property
    def num_prompt_tokens(self) -> int:
        return sum(map(len, self.texts)) // _CHARS_PER_TOKEN

    @property
    def num_chars(self) -> int:
        """Characters of the conversation."""
        return sum(message.num_chars for message in self.messages)


class CompletionBody(OpenAIFields):
    """`POST /v1/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "smollm2-135m-instruct", "prompt": "The capital of France is"}]
        }
    )

    prompt: (
        NonEmptyText
        | Annotated[list[NonEmptyText], Field(min_length=1, max_length=MAX_PROMPTS)]
        | _TokenIds
        | Annotated[list[_TokenIds], Field(min_length=1, max_length=MAX_PROMPTS), FIRST_FAULT]
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    suffix: None = None
    parse_special: bool | None = Field(
        None,
        description="The text of a special token in a prompt is that token: for prompts that are templated.",
    )
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = Field(
        None, description="Tokens to generate at most; 0 with `echo`: the prompt alone."
    )

    @model_validator(mode="after")
    def _says_something(self) -> CompletionBody:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("'max_tokens': 0 goes with 'echo': true")
        return self

    @property
    def likely_of_prompt(self) -> int | None:
        echoed = self.logprobs if self.echo else None
        return echoed if self.prompt_logprobs is None else self.prompt_logprobs

    @property
    def num_prompt_tokens(self) -> int:
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return sum(
            1
            if isinstance(one, int)
            else -(-len(one) // _CHARS_PER_TOKEN)
            if isinstance(one, str)
            else len(one)
            for one in prompts
        )

    @property
    def default_tokens(self) -> int | None:
        return 16  # OpenAI's and vLLM's

    @property
    def token_ids(self) -> Sequence[int]:
        named = list(super().token_ids)
        if not isinstance(self.prompt, str):
            for part in self.prompt:
                if isinstance(part, int):
                    named.append(part)
                elif isinstance(part, list):
                    named.extend(part)
        return named

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts that are text."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return tuple(prompt for prompt in prompts if isinstance(prompt, str))

    @property
    def has_token_prompts(self) -> bool:
        """Whether a prompt is token ids in place of a text."""
        return not isinstance(self.prompt, str) and not isinstance(self.prompt[0], str)

    @property
    def num_prompts(self) -> int:
        """Prompts in the request."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return 1
        return len(self.prompt)

    @property
    def num_chars(self) -> int:
        """Characters of the longest prompt; token ids count as one each."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return len(self.prompt)
        return max(len(part) for part in self.prompt if not isinstance(part, int))
