"""A chat request whose texts are marked: whatever a client wrote reaches the model as text, wherever it stands.

A template writes out more than the contents of messages: names, calls of tools with their arguments, thoughts,
the description of every tool, and what a client gives to the template itself. The text of a special token in any of
them would be that token, as it would in a content (bases/codec.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bases.codec import TokenizerCodec

# Of an assistant's turn: its own words, in which the tags of its calls may stand.
_OWN_WORDS = ("content", "reasoning", "reasoning_content")


def marked_chat(body: Mapping[str, Any], codec: TokenizerCodec) -> dict[str, Any]:
    """The body of a chat request, for a template whose output goes through `codec.encode_rendered`."""
    marked = {**body, "messages": [_message(message, codec) for message in body["messages"]]}
    for name in ("tools", "chat_template_kwargs"):
        if body.get(name):
            marked[name] = _every_text(body[name], codec.mark)
    return marked


def _message(message: Mapping[str, Any], codec: TokenizerCodec) -> dict[str, Any]:
    role = str(message["role"])

    def own(text: str) -> str:
        return codec.mark(text, role=role)

    return {
        name: value if name == "role" else _every_text(value, own if name in _OWN_WORDS else codec.mark)
        for name, value in message.items()
    }


def _every_text(value: Any, mark: Callable[[str], str]) -> Any:
    """`value`, which is what JSON holds, with each text in it marked, names of fields too."""
    if isinstance(value, str):
        return mark(value)
    if isinstance(value, Mapping):
        return {mark(str(name)): _every_text(each, mark) for name, each in value.items()}
    if isinstance(value, list):
        return [_every_text(each, mark) for each in value]
    return value
