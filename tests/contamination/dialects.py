"""The ways in which a request can be put, and how each says what was answered, by which version, and its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

Body = dict[str, Any]


@dataclass
class Said:
    """What an answer says, whole or so far."""

    text: str = ""
    versions: set[str | None] = field(default_factory=set)  # every version that it names; None: the base
    ends: int = 0  # events after which nothing may come, or whole bodies
    error: str | None = None  # the error's code
    finish: str | None = None  # why it ended
    after_end: bool = False  # something came after the end
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Ask:
    """One request, before it is put into a dialect."""

    reference: str | None  # alias or pinned version; None: the base
    given: Mapping[str, Any]  # {"prompt": ...} or {"messages": ...}
    max_tokens: int
    sampling: Mapping[str, Any]
    logprobs: int | None = None


@dataclass(frozen=True)
class Dialect:
    """One route, streaming or not."""

    name: str
    path: str
    stream: bool
    chats: bool | None  # takes messages alone, prompts alone (False), or both (None)
    body: Callable[[Ask, str], Body]  # the second argument is the base's name
    whole: Callable[[Body, Said, str], None]
    piece: Callable[[str, str, Said, str], None]  # (event, data, said so far, base's name)

    def takes(self, given: Mapping[str, Any]) -> bool:
        """Whether it can put this input."""
        return self.chats is None or self.chats == ("messages" in given)


# What the errors of LoRAX's dialect are called in the gateway's own.
_LORAX_CODES = {
    "incomplete_generation": "aborted",
    "generation": "generation_failed",
    "overloaded": "queue_full",
}


def error_code(payload: Any) -> str:
    """The code of an error in the gateway's shape or in LoRAX's, or what came instead of one."""
    try:
        if "error_type" in payload:
            return _LORAX_CODES.get(payload["error_type"], str(payload["error_type"]))
        return str(payload["error"]["code"])
    except (KeyError, TypeError):
        return f"no error in our shape: {str(payload)[:100]}"


def _named(model: str, base_name: str) -> str | None:
    return None if model == base_name else model


def _generate_body(ask: Ask, base_name: str) -> Body:
    body = {**ask.given, **ask.sampling, "max_tokens": ask.max_tokens}
    if ask.reference is not None:
        body["adapter"] = ask.reference
    if ask.logprobs is not None:
        body["logprobs"] = ask.logprobs
    return body


def _generate_whole(payload: Body, said: Said, base_name: str) -> None:
    said.text, said.ends = payload["text"], said.ends + 1
    said.versions.add(payload["adapter"])
    said.finish = payload["finish_reason"]
    said.logprobs = payload.get("logprobs", [])


def _generate_piece(event: str, data: str, said: Said, base_name: str) -> None:
    said.after_end = said.after_end or said.ends > 0
    payload = orjson.loads(data)
    if event == "delta":
        said.text += payload["text"]
    elif event == "done":
        said.ends += 1
        said.versions.add(payload["adapter"])
        said.finish = payload["finish_reason"]
    else:
        said.ends += 1
        said.error = error_code(payload)


def _openai_body(ask: Ask, base_name: str) -> Body:
    model = ask.reference if ask.reference is not None else base_name
    return {**ask.given, **ask.sampling, "max_tokens": ask.max_tokens, "model": model}


def _chat_whole(payload: Body, said: Said, base_name: str) -> None:
    [choice] = payload["choices"]
    message = choice.get("message")
    said.text = message["content"] if message is not None else choice["text"]
    said.ends += 1
    said.versions.add(_named(payload["model"], base_name))
    said.finish = choice["finish_reason"]


def _openai_piece(event: str, data: str, said: Said, base_name: str) -> None:
    said.after_end = said.after_end or said.ends > 0
    if data == "[DONE]":
        said.ends += 1
        return
    payload = orjson.loads(data)
    if "error" in payload:
        said.error = error_code(payload)
        return
    said.versions.add(_named(payload["model"], base_name))
    for choice in payload["choices"]:
        delta = choice.get("delta")
        said.text += (delta.get("content") or "") if delta is not None else choice["text"]
        said.finish = choice["finish_reason"] or said.finish


def _lorax_body(ask: Ask, base_name: str) -> Body:
    parameters = {**ask.sampling, "max_new_tokens": ask.max_tokens}
    if ask.sampling["temperature"] != 0:
        parameters["do_sample"] = True
    if ask.reference is not None:
        parameters["adapter_id"] = ask.reference
    if "prompt" in ask.given:
        return {"inputs": ask.given["prompt"], "parameters": parameters}
    [message] = ask.given["messages"]
    return {"inputs": message["content"], "parameters": {**parameters, "apply_chat_template": True}}


def _lorax_whole(payload: Body, said: Said, base_name: str) -> None:
    said.text, said.ends, said.finish = payload["generated_text"], said.ends + 1, "stop"


def _lorax_piece(event: str, data: str, said: Said, base_name: str) -> None:
    said.after_end = said.after_end or said.ends > 0
    payload = orjson.loads(data)
    if "error" in payload:
        said.ends += 1
        said.error = error_code(payload)
        return
    if not payload["token"]["special"]:
        said.text += payload["token"]["text"]
    if payload["generated_text"] is not None:
        said.ends += 1
        said.finish = "stop"
        if payload["generated_text"].strip() != said.text.strip():
            said.error = f"the whole text is {payload['generated_text']!r}"


def _both(
    name: str,
    path: str,
    chats: bool | None,
    body: Callable[[Ask, str], Body],
    whole: Callable[[Body, Said, str], None],
    piece: Callable[[str, str, Said, str], None],
) -> tuple[Dialect, Dialect]:
    def streamed(ask: Ask, base_name: str) -> Body:
        return {**body(ask, base_name), "stream": True}

    return (
        Dialect(name, path, False, chats, body, whole, piece),
        Dialect(f"{name} stream", path, True, chats, streamed, whole, piece),
    )


GENERATE = _both("generate", "/generate", None, _generate_body, _generate_whole, _generate_piece)
CHAT = _both("chat", "/v1/chat/completions", True, _openai_body, _chat_whole, _openai_piece)
COMPLETIONS = _both("completions", "/v1/completions", False, _openai_body, _chat_whole, _openai_piece)
LORAX = (
    Dialect("lorax", "/lorax/generate", False, None, _lorax_body, _lorax_whole, _lorax_piece),
    Dialect("lorax stream", "/lorax/generate_stream", True, None, _lorax_body, _lorax_whole, _lorax_piece),
)
ALL: tuple[Dialect, ...] = (*GENERATE, *CHAT, *COMPLETIONS, *LORAX)
