"""How far quantising moved what the original would say, as the gateway measures a base before it trusts it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# As in serve/lifecycle/verdict.py, which judges by what is measured here.
MAX_LOG_ODDS = math.log(1000)


def log_odds(logprobs: Any) -> Any:
    """log(p / (1 - p)) of a float64 tensor of log probabilities, within MAX_LOG_ODDS above, open below."""
    import torch

    sure = logprobs >= -1e-9
    safe = torch.where(sure, torch.full_like(logprobs, -1.0), logprobs)
    odds = (safe - torch.log(-torch.expm1(safe))).clamp(max=MAX_LOG_ODDS)
    return torch.where(sure, torch.full_like(odds, MAX_LOG_ODDS), odds)


def base_rounding(
    original: Any, quantised: Any, prompts: Sequence[Sequence[int]], *, num_tokens: int = 16
) -> tuple[float, int]:
    """(root mean square difference of log-odds, number of tokens) over what the original says to the prompts.

    The original answers each prompt greedily with up to `num_tokens` tokens; both models then score them.
    `prompts` are token ids, none of them empty.
    """
    import torch

    differences = []
    with torch.inference_mode():
        for prompt in prompts:
            answer = _say(original, prompt, num_tokens)
            both = [log_odds(_score(model, prompt, answer)) for model in (original, quantised)]
            differences.append(both[1] - both[0])
    moved = torch.cat(differences)
    return float(moved.square().mean().sqrt()), moved.numel()


def _say(model: Any, prompt: Sequence[int], num_tokens: int) -> list[int]:
    """Greedy tokens after the prompt, the end token included where the model stops before `num_tokens`."""
    import torch

    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    said: list[int] = []
    ids, past = torch.tensor([list(prompt)]), None
    while len(said) < num_tokens and not (said and said[-1] in ends):
        output = model(input_ids=ids, past_key_values=past, use_cache=True)
        past = output.past_key_values
        said.append(int(output.logits[0, -1].argmax()))
        ids = torch.tensor([[said[-1]]])
    return said


def _score(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Any:
    """Log probabilities of the answer's tokens after the prompt, [answer] in float64."""
    import torch

    ids = torch.tensor([[*prompt, *answer]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    return logprobs.gather(1, torch.tensor(list(answer))[:, None])[:, 0]
