"""`POST /generate`: what may be asked and what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from serve.schemas.sampling import (
    FIRST_FAULT,
    MAX_LOGPROBS,
    ModelReference,
    NonEmptyText,
    PlainText,
    SamplingFields,
    StrictModel,
)

MAX_PROMPTS = 128
MAX_MESSAGES = 1024


class Message(StrictModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: PlainText


class GenerateBody(SamplingFields):
    """A prompt (or several, or a conversation) and how to answer it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "The capital of France is", "max_tokens": 8},
                {
                    "messages": [{"role": "user", "content": "What is the capital of France?"}],
                    "max_tokens": 8,
                    "stream": True,
                },
            ]
        }
    )

    prompt: (
        NonEmptyText | Annotated[list[NonEmptyText], Field(min_length=1, max_length=MAX_PROMPTS)] | None
    ) = Field(
        None,
        description="Raw text to continue; a list is answered in order.",
        examples=["The capital of France is"],
    )
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES), FIRST_FAULT] | None = (
        Field(None, description="A conversation, put through the base's chat template; instead of `prompt`.")
    )
    adapter: ModelReference | None = Field(
        None, description="Alias (`risk`) or pinned version (`risk@3f2a91c0`); absent: the base."
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        None, description="Log probability of each token and of that many likeliest ones."
    )
    reasoning: bool = Field(True, description="Give a reasoning model's thoughts in a field of their own.")
    parse_special: bool = Field(
        False,
        description="Read special tokens in `prompt` as control tokens; for prompts templated by the caller.",
    )

    @model_validator(mode="after")
    def _one_input(self) -> GenerateBody:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either 'prompt' or 'messages', and not both")
        if isinstance(self.prompt, list) and self.stream:
            raise ValueError("a list of prompts cannot be streamed; send one request for each")
        if self.parse_special and self.messages is not None:
            raise ValueError(
                "'parse_special' goes with 'prompt'; the chat template places the control tokens"
            )
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """What the client wrote, in order."""
        if self.messages is not None:
            return tuple(message.content for message in self.messages)
        return (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt or ())

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop texts as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class Usage(StrictModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int


class Timing(StrictModel):
    """Milliseconds: until a place in the engine was asked for, waiting for it, waiting for it and in the engine's
    own queue, request to first token, request to last token."""

    entry_ms: float | None
    admission_ms: float
    queue_ms: float | None
    ttft_ms: float | None
    total_ms: float


class TopToken(StrictModel):
    """One likely token."""

    id: int
    text: str
    logprob: float


class TokenLogprobBody(TopToken):
    """A generated token and its likeliest rivals."""

    top: list[TopToken]


class Choice(StrictModel):
    """One answer to a prompt."""

    index: int
    text: str
    reasoning: str | None = None
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprobBody] | None = None


class Result(StrictModel):
    """The answer to one prompt of a list."""

    index: int
    text: str
    reasoning: str | None = None
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprobBody] | None = None
    usage: Usage
    choices: list[Choice] | None = None


class GenerateAnswer(StrictModel):
    """A whole answer. `choices` is there for n > 1, `results` for a list of prompts (instead of `text`)."""

    id: str
    model: str
    adapter: str | None
    text: str | None = None
    reasoning: str | None = None
    finish_reason: Literal["stop", "length"] | None = None
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprobBody] | None = None
    choices: list[Choice] | None = None
    results: list[Result] | None = None
    usage: Usage
    timing: Timing
