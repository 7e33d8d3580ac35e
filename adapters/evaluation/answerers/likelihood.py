"""How likely transformers finds the tokens that examples teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.data.example import Example
from adapters.errors import EvaluationError
from adapters.evaluation.answer import Likelihood
from adapters.evaluation.answerers.answerer import Progress
from adapters.evaluation.answerers.transformers_model import LoadedModel

_NO_BOUND_TOKENS = 1 << 20
# Logits of one pass: the vocabulary is wide, and all tokens of a batch may be learned ones.
_MAX_LOGITS = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LearnedTokens:
    """Token ids of one example and which of them it teaches; `example` is its place among the examples."""

    example: int
    input_ids: tuple[int, ...]
    supervised: tuple[bool, ...]


def learned_tokens(
    examples: Sequence[Example], base_folder: Path, *, max_length_tokens: int | None
) -> list[LearnedTokens]:
    """Encode as training does, so that perplexity here and there mean the same. Raises DataError."""
    from adapters.data.encode import ExampleEncoder

    encoder = ExampleEncoder(base_folder, max_length_tokens=max_length_tokens or _NO_BOUND_TOKENS)
    return [
        LearnedTokens(place, tuple(encoded.input_ids), tuple(encoded.supervised))
        for place, example in enumerate(examples)
        for encoded in encoder.encode(example)
    ]


def example_likelihoods(
    loaded: LoadedModel, examples: Sequence[Example], *, adapter: bool, progress: Progress
) -> list[Likelihood]:
    """Likelihood of each example's learned tokens, in order."""
    encoded = learned_tokens(examples, loaded.base_folder, max_length_tokens=loaded.context_tokens)
    nats, counts = [0.0] * len(examples), [0] * len(examples)
    done = 0
    for batch in _token_batches(encoded, loaded):
        with loaded.speaking(adapter=adapter) as model:
            for each, value in zip(batch, _batch_nats(model, loaded, batch), strict=True):
                nats[each.example] += value
                counts[each.example] += sum(each.supervised[1:])
        done += len(batch)
        progress(done, len(encoded))
    return [Likelihood(value, count) for value, count in zip(nats, counts, strict=True)]


def _token_batches(encoded: Sequence[LearnedTokens], loaded: LoadedModel) -> list[list[LearnedTokens]]:
    """Longest first; one pass holds `_MAX_LOGITS` logits at most, or one example."""
    capacity_tokens = max(1, _MAX_LOGITS // int(loaded.model.config.get_text_config().vocab_size))
    made: list[list[LearnedTokens]] = []
    for each in sorted(encoded, key=lambda one: -len(one.input_ids)):
        longest = len(made[-1][0].input_ids) if made else 0
        full = bool(made) and longest * (len(made[-1]) + 1) > capacity_tokens
        # Virtual tokens stand before the text, and PEFT places padding between: no padding then.
        other_length = loaded.prompt_learning and longest != len(each.input_ids)
        if not made or full or other_length:
            made.append([])
        made[-1].append(each)
    return made


def _batch_nats(model: Any, loaded: LoadedModel, batch: Sequence[LearnedTokens]) -> list[float]:
    """Summed negative log-likelihood of each row's learned tokens, in nats."""
    import torch

    width = max(len(each.input_ids) for each in batch)
    ids = torch.full((len(batch), width), loaded.pad_id)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    learned = torch.zeros((len(batch), width), dtype=torch.bool)
    for row, each in enumerate(batch):
        # On the right: causal attention keeps padding from what stands before it.
        ids[row, : len(each.input_ids)] = torch.tensor(each.input_ids)
        mask[row, : len(each.input_ids)] = 1
        learned[row, : len(each.input_ids)] = torch.tensor(each.supervised)
    ids, mask, learned = (tensor.to(model.device) for tensor in (ids, mask, learned))
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -width:]  # [B, width, V]
    rows, places = learned[:, 1:].nonzero(as_tuple=True)  # the first token has nothing before it
    logprobs = torch.log_softmax(logits[rows, places].float(), dim=-1)  # [learned tokens, V]
    chosen = logprobs.gather(1, ids[rows, places + 1][:, None])[:, 0]
    if not torch.isfinite(chosen).all():
        raise EvaluationError(
            "the model gives probabilities that are not finite; its weights or the precision are at fault "
            "(try --precision float32)"
        )
    sums = torch.zeros(len(batch), dtype=torch.float64, device=model.device)
    return [-float(value) for value in sums.index_add(0, rows, chosen.double())]
