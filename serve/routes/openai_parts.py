"""A request for many completions as several narrow ones, so that it takes its turns like everybody else.

vLLM's handler hands all prompts of a request to the engine at once, and so a request is let in as a whole: one
that is as wide as the engine, or wider, would keep everybody out from the moment it is next in line until its last
answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serve.schemas.openai import CompletionBody

# Of what the engine takes at once: others find room beside it, and its own parts follow each other without a gap.
WIDTH_SHARE = 1 / 4
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def in_parts(body: CompletionBody, *, max_running: int) -> list[CompletionBody]:
    """The request as narrow ones, in the order of their prompts; itself where it is narrow."""
    prompts = int(max_running * WIDTH_SHARE) // (body.n or 1) or 1
    if body.num_prompts <= prompts:
        return [body]
    listed: Any = body.prompt
    return [
        body.model_copy(update={"prompt": listed[begin : begin + prompts]})
        for begin in range(0, len(listed), prompts)
    ]


def as_one(answers: Sequence[Mapping[str, Any]], parts: Sequence[CompletionBody]) -> dict[str, Any]:
    """The answers of the parts as vLLM would have given them to the whole."""
    choices: list[dict[str, Any]] = []
    before = 0
    for answer, part in zip(answers, parts, strict=True):
        choices += [{**choice, "index": before + choice["index"]} for choice in answer["choices"]]
        before += part.num_prompts * (part.n or 1)
    usages = [answer["usage"] for answer in answers]
    usage = {**usages[0], **{name: sum(each[name] for each in usages) for name in _COUNTS}}
    details = [found for each in usages if (found := each.get("prompt_tokens_details"))]
    if details:
        cached = sum(each.get("cached_tokens") or 0 for each in details)
        usage["prompt_tokens_details"] = {**details[0], "cached_tokens": cached}
    return {**answers[0], "choices": choices, "usage": usage}
