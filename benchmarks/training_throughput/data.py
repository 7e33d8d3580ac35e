"""The chat examples of a JSONL file, as each contender takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Conversation = list[dict[str, str]]


def read_conversations(path: Path, *, limit: int | None = None) -> list[Conversation]:
    """The `messages` of each line, at most `limit`."""
    with path.open(encoding="utf-8") as file:
        lines = file.readlines()[:limit]
    return [json.loads(line)["messages"] for line in lines]


def encode(tokenizer: Any, conversation: Conversation) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids with the end of the turn): what is read and what is learned."""
    prompt = tokenizer.apply_chat_template(conversation[:-1], tokenize=False, add_generation_prompt=True)
    answer = conversation[-1]["content"] + tokenizer.eos_token
    return (
        list(tokenizer(prompt, add_special_tokens=False).input_ids),
        list(tokenizer(answer, add_special_tokens=False).input_ids),
    )


def validation_loss(model: Any, tokenizer: Any, conversations: list[Conversation]) -> float:
    """Mean nats of an answer's token, one example at a time in the model's own precision: no trainer's code."""
    import torch

    total, count = 0.0, 0
    model.eval()
    device = next(model.parameters()).device
    for conversation in conversations:
        prompt, answer = encode(tokenizer, conversation)
        input_ids = torch.tensor([prompt + answer], device=device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=False):
            logits = model(input_ids=input_ids).logits[0, len(prompt) - 1 : -1].float()
        total += float(
            torch.nn.functional.cross_entropy(logits, input_ids[0, len(prompt) :], reduction="sum")
        )
        count += len(answer)
    return total / max(count, 1)
