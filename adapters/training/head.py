"""A model's forward that gives log probabilities of learned tokens instead of logits of all."""

from __future__ import annotations

import functools
from typing import Any

import torch

from adapters.training.collate import NOT_LEARNED
from adapters.training.loss import MAX_LOGITS_BYTES, logit_transform, supervised_logprobs

LOG_PROBS = "log_probs"
HITS = "hits"


def add_learned_head(model: Any) -> None:
    """Let `model(..., labels=labels, learned_only=True)` give {"log_probs": [n]} of the n learned tokens.

    `count_hits=True` adds {"hits": []}, how many of them are the most likely token. `model` is the causal model
    itself, below PEFT, and everything that wraps it (DDP, FSDP, PEFT) still sees one forward call of its own.
    """
    original = model.forward
    scale, softcap = logit_transform(model.config)

    @functools.wraps(type(model).forward)
    def forward(
        *args: Any, learned_only: bool = False, count_hits: bool = False, labels: Any = None, **kwargs: Any
    ) -> Any:
        if not learned_only:
            if labels is not None:
                kwargs["labels"] = labels
            return original(*args, **kwargs)
        kwargs["use_cache"] = False
        # Looked up at every call: FSDP and PEFT replace both.
        states = model.base_model(*args, **kwargs).last_hidden_state
        head = model.get_output_embeddings()
        log_probs = supervised_logprobs(
            states, head.weight, head.bias, labels, logit_scale=scale, softcap=softcap
        )
        return {LOG_PROBS: log_probs, **({HITS: _hits(states, head, labels)} if count_hits else {})}

    model.forward = forward


def _hits(states: Any, head: Any, labels: Any) -> Any:
    """How many learned tokens are the most likely ones. Scale and cap of logits do not change their order."""
    learned = labels[:, 1:] != NOT_LEARNED
    chosen, targets = states[:, :-1][learned], labels[:, 1:][learned]
    rows = max(1, MAX_LOGITS_BYTES // (4 * head.weight.shape[0]))
    weight, bias = _whole(head.weight), _whole(head.bias)
    hits = torch.zeros((), dtype=torch.int64, device=states.device)
    for start in range(0, chosen.shape[0], rows):
        part = slice(start, start + rows)
        logits = torch.nn.functional.linear(chosen[part].to(weight.dtype), weight, bias)
        hits += (logits.argmax(-1) == targets[part]).sum()
    return hits


def _whole(parameter: Any) -> Any:
    """A parameter that FSDP2 shards, gathered once: processes have different numbers of tokens to look at."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
