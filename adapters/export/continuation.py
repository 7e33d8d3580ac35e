"""Greedy continuations and their log probabilities through transformers, for the probe file and for proofs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.export.fidelity import Answer


def continue_greedily(
    model: Any, prompts: Sequence[Sequence[int]], *, num_tokens: int, batch_size: int = 16
) -> list[Answer]:
    """The greedy continuation of each prompt by exactly `num_tokens` tokens, end tokens or not.

    Prompts are padded on the left and masked; equal prompts give equal answers up to rounding.
    """
    answers: list[Answer] = []
    for start in range(0, len(prompts), batch_size):
        answers += _continue_batch(model, prompts[start : start + batch_size], num_tokens)
    return answers


def score_answers(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    *,
    batch_size: int = 16,
) -> list[Answer]:
    """What `model` gives the tokens of `answers` after the same prompts (teacher-forced)."""
    scored: list[Answer] = []
    for start in range(0, len(prompts), batch_size):
        end = start + batch_size
        scored += _score_batch(model, prompts[start:end], answers[start:end])
    return scored


def _continue_batch(model: Any, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[Answer]:
    import torch

    ids, mask = _pad_left(prompts, model.device)
    tokens, logprobs, margins = [], [], []
    cache = None
    with torch.no_grad():
        inputs = ids
        for _ in range(num_tokens):
            output = model(
                input_ids=inputs,
                attention_mask=mask,
                position_ids=_positions(mask)[:, -inputs.shape[1] :],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            best = torch.log_softmax(output.logits[:, -1].float(), dim=-1).topk(2)
            tokens.append(best.indices[:, 0])
            logprobs.append(best.values[:, 0])
            margins.append(best.values[:, 0] - best.values[:, 1])
            inputs = best.indices[:, :1]
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
    columns = (torch.stack(part, dim=1).tolist() for part in (tokens, logprobs, margins))
    return [Answer(tuple(a), tuple(b), tuple(c)) for a, b, c in zip(*columns, strict=True)]


def _score_batch(model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Answer]) -> list[Answer]:
    import torch

    longest = max(len(answer.token_ids) for answer in answers)
    # Answers are made equally long, so that they lie side by side at the right end.
    filled = [
        [*answer.token_ids, *[answer.token_ids[-1]] * (longest - len(answer.token_ids))] for answer in answers
    ]
    sequences = [[*prompt, *tokens] for prompt, tokens in zip(prompts, filled, strict=True)]
    ids, mask = _pad_left(sequences, model.device)
    with torch.no_grad():
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=_positions(mask),
            use_cache=False,
            logits_to_keep=longest + 1,
        )
        logits = torch.log_softmax(output.logits[:, -longest - 1 : -1].float(), dim=-1)  # (n, longest, vocab)
        chosen = logits.gather(2, ids[:, -longest:, None]).squeeze(2)
        margins = chosen - logits.topk(2).values[:, :, 1]
    return [
        Answer(
            answer.token_ids,
            tuple(row[: len(answer.token_ids)]),
            tuple(margin[: len(answer.token_ids)]),
        )
        for answer, row, margin in zip(answers, chosen.tolist(), margins.tolist(), strict=True)
    ]


def _pad_left(sequences: Sequence[Sequence[int]], device: Any) -> tuple[Any, Any]:
    """(ids, mask), both (n, longest); the padding's value does not matter behind the mask."""
    import torch

    longest = max(map(len, sequences))
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in sequences], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in sequences], device=device)
    return ids, mask


def _positions(mask: Any) -> Any:
    return (mask.cumsum(dim=1) - 1).clamp_min(0)
