"""What is asked of a model for one example: the same conversation for every way of asking."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.data.example import Example, Message


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that waits for the assistant, or a raw prompt; and the answer that the data hold."""

    messages: tuple[Message, ...]
    prompt: str | None
    reference: str

    def as_dicts(self) -> list[dict[str, str]]:
        """The conversation as chat templates and the gateway take it."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def shown(self) -> str:
        """What a reader of a report needs to see of it: the last turn, or the prompt."""
        return self.messages[-1].content if self.messages else self.prompt or ""


def question_of(example: Example) -> Question | None:
    """The example without its last assistant turn; None where nothing is asked.

    That is the case for text examples, and for conversations that open with the assistant's only turn.
    """
    if example.shape == "completion":
        return Question((), example.prompt or "", example.completion or "")
    if example.shape == "text":
        return None
    last = max(
        (index for index, message in enumerate(example.messages) if message.role == "assistant"), default=0
    )
    if last == 0:
        return None
    return Question(example.messages[:last], None, example.messages[last].content)
