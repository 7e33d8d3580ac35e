"""One training example, whatever file and shape it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an example was read: a file's name and the line or row in it, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Example:
    """One of three shapes, told apart by what is there:

    - chat: `messages`, of which at least one is the assistant's; every assistant turn is learned.
    - completion: `prompt` (raw text, no template) and `completion`; the completion is learned.
    - text: `text`, all of it is learned.

    `label` is the class, where the data names one; `task` is the data set it came from (mixing, weights).
    """

    origin: Origin
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    label: str | None = None
    task: str = "default"

    @property
    def shape(self) -> Literal["chat", "completion", "text"]:
        """Which of the three it is."""
        if self.messages:
            return "chat"
        return "completion" if self.text is None else "text"

    @property
    def answer(self) -> str:
        """What a model should say last: the final assistant turn, the completion, or the text."""
        if self.messages:
            return self.messages[-1].content
        return self.completion if self.completion is not None else self.text or ""

    def parts(self) -> tuple[str, ...]:
        """Every piece of text in it, in order."""
        if self.messages:
            return tuple(message.content for message in self.messages)
        return tuple(part for part in (self.prompt, self.completion, self.text) if part is not None)

    def with_parts(self, parts: tuple[str, ...]) -> Self:
        """The same example with other texts in the order of `parts()`."""
        if self.messages:
            turns = zip(self.messages, parts, strict=True)
            return replace(self, messages=tuple(Message(message.role, part) for message, part in turns))
        given = iter(parts)
        return replace(
            self,
            prompt=next(given) if self.prompt is not None else None,
            completion=next(given) if self.completion is not None else None,
            text=next(given) if self.text is not None else None,
        )
