"""Reads back what was written, through stock PEFT, and holds its answers against the trained model's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.errors import ExportError
from adapters.export.continuation import score_answers
from adapters.export.fidelity import Answer
from adapters.export.probe_writer import make_probe
from adapters.export.servable import EXACT_ERROR, ServableForm
from adapters.export.trained import ServedBase
from adapters.probe import Probe

# An exact export may differ from the trained model in float32 by rounding; more is a base that was changed.
MAX_EXACT_DIFFERENCE_NATS = 0.01
_NUM_COMPARED_CASES = 4


def prove_written(
    model: Any,
    folder: Path,
    base: ServedBase,
    *,
    prompts: Sequence[Sequence[int]],
    fingerprint: str,
    num_cases: int,
    num_tokens: int,
) -> tuple[Probe, float]:
    """(probe of what was written in `folder`, largest difference of its log probabilities from `model`'s, nats).

    The adapter is put on `base`, which holds it afterwards. `model` is left as it was.
    """
    from peft import PeftModel

    served = PeftModel.from_pretrained(base.model, folder).eval()
    probe = make_probe(
        served,
        prompts=prompts,
        fingerprint=fingerprint,
        num_cases=num_cases,
        num_tokens=num_tokens,
        end_token_ids=_end_tokens(base.model),
    )
    compared = probe.cases[:_NUM_COMPARED_CASES]
    expected = [Answer(tuple(case.expected_token_ids), tuple(case.adapter_logprobs)) for case in compared]
    with _answering(model):
        found = score_answers(model, [case.prompt_token_ids for case in compared], expected, batch_size=1)
    difference = max(
        abs(one - other)
        for left, right in zip(expected, found, strict=True)
        for one, other in zip(left.logprobs, right.logprobs, strict=True)
    )
    return probe, difference


@contextmanager
def _answering(model: Any) -> Iterator[None]:
    """`model` in evaluation mode with an attention that needs no packing, and afterwards as it was."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    attention = inner.config._attn_implementation
    was_training = model.training
    model.eval()
    if attention not in ("sdpa", "eager"):
        inner.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if attention not in ("sdpa", "eager"):
            inner.set_attn_implementation(attention)
        model.train(was_training)


def _end_tokens(model: Any) -> frozenset[int]:
    ids = model.generation_config.eos_token_id
    return frozenset(() if ids is None else [ids] if isinstance(ids, int) else ids)


def refuse_unlike(form: ServableForm, model: Any, difference: float) -> None:
    """Raise ExportError for an exact form that answers otherwise: the trained model stands on another base."""
    import torch

    is_float32 = all(value.dtype == torch.float32 for value in model.parameters())
    if is_float32 and form.max_error <= EXACT_ERROR and difference > MAX_EXACT_DIFFERENCE_NATS:
        raise ExportError(
            f"The adapter on the base does not answer as the trained model does: a log probability differs by "
            f"{difference:.4f} nats, at most {MAX_EXACT_DIFFERENCE_NATS} are rounding. Something beside the "
            "adapter changed in training (weights of the base, buffers, a configuration). Train on the base as it "
            "is served."
        )
