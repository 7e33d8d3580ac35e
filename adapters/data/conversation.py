"""Lists of messages as data files hold them, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from adapters.data.example import Message, Role
from adapters.errors import AdapterFileError
from adapters.strict_json import parse_json_object

ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


class RowError(ValueError):
    """A row that is no example. The text says what is wrong with it and what to do."""


def parse_messages(value: Any, *, field: str) -> tuple[Message, ...]:
    """`role`/`content` (OpenAI) or `from`/`value` (ShareGPT) turns; a text that holds such a list as JSON too.

    Raises RowError for an unknown role, a turn without text, and a system turn that is not the first.
    """
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        try:
            value = parse_json_object(b'{"turns":' + raw + b"}", what=field)["turns"]
        except (AdapterFileError, KeyError):
            raise RowError(f"{field!r} is text, not a list of messages") from None
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RowError(f"{field!r} is not a list of messages")
    turns = tuple(_parse_turn(turn, number) for number, turn in enumerate(value, start=1))
    if not turns:
        raise RowError(f"{field!r} is an empty list; a conversation needs a user's and an assistant's turn")
    for number, turn in enumerate(turns[1:], start=2):
        if turn.role == "system":
            raise RowError(f"message {number} is a system message; only the first may be one")
    return turns


def check_learnable(messages: Sequence[Message]) -> None:
    """Raise RowError unless the conversation ends with what the model shall say, after something to answer."""
    if messages[-1].role != "assistant":
        raise RowError(
            f"the last message is the {messages[-1].role}'s, so nothing follows that could be learned; end with an "
            "assistant message"
        )
    if all(message.role != "user" for message in messages):
        raise RowError("no message is the user's; put what the assistant answers before it")


def _parse_turn(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"message {number} is not an object with role and content")
    named = turn.get("role", turn.get("from"))
    role = ROLES.get(named.strip().lower()) if isinstance(named, str) else None
    if role is None:
        raise RowError(
            f"message {number} has the role {named!r}; known are {', '.join(ROLES)} (tool calls are not learned)"
        )
    text = _turn_text(turn.get("content", turn.get("value")))
    if text is None:
        raise RowError(f"the {role} message {number} has no text")
    if not text.strip():
        raise RowError(f"the {role} message {number} is empty; write it or leave the example out")
    return Message(role, text)


def _turn_text(content: Any) -> str | None:
    if isinstance(content, list) and content:  # OpenAI's list of parts, as long as all of them are text
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        given = [text for text in texts if isinstance(text, str)]
        return "".join(given) if len(given) == len(content) else None
    return content if isinstance(content, str) else None
