"""One turn of `/v1/chat/completions`, as a client writes it or sends back what it was answered.

Clients put an answer's `message` into the next request as it is, with every field that a server of OpenAI's dialect
fills with null: those are taken, and asked to say nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from serve.schemas.neutral import only
from serve.schemas.sampling import PlainText, StrictModel

MAX_PARTS = 64
MAX_CALLS = 64

ShortText = Annotated[PlainText, StringConstraints(max_length=256)]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


_NoRefusal = Annotated[None, only(None, "a refusal cannot be put before the model; send it as 'content'")]
_NoAudio = Annotated[None, only(None, "audio is not taken")]
_NoFunctionCall = Annotated[None, only(None, "'function_call' is not taken; send 'tool_calls'")]
_NoAnnotations = Annotated[
    Annotated[list[Any], Field(max_length=0)] | None,
    only([], "annotations cannot be put before the model; leave them out"),
]


class TextPart(StrictModel):
    """A piece of text; images, audio and links are not taken."""

    type: Literal["text"]
    text: PlainText


class CalledFunction(StrictModel):
    """A function that the assistant called."""

    name: ToolName
    arguments: PlainText


class ToolCall(StrictModel):
    """One call of the assistant."""

    id: ShortText
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(StrictModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: PlainText | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)] | None = None
    name: ShortText | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: ShortText | None = None
    reasoning: PlainText | None = Field(None, description="What the assistant thought before it answered.")
    reasoning_content: PlainText | None = Field(None, description="An older name of `reasoning`.")
    refusal: _NoRefusal = None
    annotations: _NoAnnotations = Field(None, exclude=True)
    audio: _NoAudio = None
    function_call: _NoFunctionCall = None

    @model_validator(mode="after")
    def _says_something(self) -> ChatMessage:
        said = self.tool_calls or self.reasoning or self.reasoning_content
        if self.content is None and not (self.role == "assistant" and said):
            raise ValueError(
                "a message needs 'content' (an assistant's may have 'tool_calls' or 'reasoning' instead)"
            )
        if self.role != "assistant" and (self.reasoning or self.reasoning_content):
            raise ValueError("'reasoning' goes with the role 'assistant'")
        return self

    @property
    def num_chars(self) -> int:
        """Characters that the template writes out whatever it does with thoughts and calls."""
        if isinstance(self.content, str):
            return len(self.content)
        return sum(len(part.text) for part in self.content or ())

    @property
    def texts(self) -> list[str]:
        """What the client wrote, parts apart; arguments of calls, thoughts and names too."""
        content = self.content
        found = [content] if isinstance(content, str) else [part.text for part in content or ()]
        found += [call.function.arguments for call in self.tool_calls or ()]
        return [*found, self.reasoning or "", self.reasoning_content or "", self.name or ""]
