"""KL divergence of two models' next tokens, from their last hidden states: logits of few tokens at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapters.training.loss import MAX_LOGITS_BYTES, logit_transform


@dataclass(frozen=True, slots=True)
class Head:
    """The output layer of a model: logits are `scale * (states @ weight.T + bias)`, then capped where `softcap`."""

    weight: Any
    bias: Any
    scale: float
    softcap: float | None

    @classmethod
    def of(cls, model: Any) -> Head:
        """The head of a causal model of transformers."""
        layer = model.get_output_embeddings()
        return cls(layer.weight, getattr(layer, "bias", None), *logit_transform(model.config))

    def logits(self, states: Any) -> Any:
        """[n, vocabulary] in float32."""
        logits = torch.nn.functional.linear(states.to(self.weight.dtype), self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.softcap is not None:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits


def token_divergences(
    teacher_states: Any,
    teacher: Head,
    student_states: Any,
    student: Head,
    *,
    max_logits_bytes: int = MAX_LOGITS_BYTES,
) -> Any:
    """KL(teacher || student) of each token's distribution in nats: [n] float32, differentiable for the student.

    States are [n, hidden] of the last layer. Logits exist for as many tokens at a time as both models' float32
    logits fit into `max_logits_bytes`. Neither head gets a gradient.
    """
    rows = max(1, max_logits_bytes // (8 * student.weight.shape[0]))
    return _Divergence.apply(student_states, teacher_states.detach(), teacher, student, rows)


def last_states(model: Any, rows: Sequence[Sequence[int]]) -> Any:
    """Last hidden states [tokens, hidden] of rows of token ids, all of one length, one after the other."""
    inner = causal_model(model)
    ids = torch.tensor([list(row) for row in rows], device=inner.device)
    return inner.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)


def causal_model(model: Any) -> Any:
    """The causal model of transformers itself, where PEFT is around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class _Divergence(torch.autograd.Function):  # type: ignore[misc]
    """The gradient for each state, (softmax(student) - softmax(teacher)) @ W, is made with the logits at hand and
    kept, [n, hidden], so that the backward pass only scales it."""

    @staticmethod
    def forward(ctx: Any, states: Any, teacher_states: Any, teacher: Head, student: Head, rows: int) -> Any:
        result = states.new_empty(states.shape[0], dtype=torch.float32)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for start in range(0, states.shape[0], rows):
            part = slice(start, start + rows)
            expected = torch.log_softmax(teacher.logits(teacher_states[part]), dim=-1)
            logits = student.logits(states[part])
            slope = None
            if student.softcap is not None and gradient is not None:
                slope = 1.0 - (logits / student.softcap).square_()
            found = torch.log_softmax(logits, dim=-1)
            del logits
            probabilities = expected.exp()
            result[part] = torch.einsum("nv,nv->n", probabilities, expected.sub_(found)).clamp_min_(0.0)
            if gradient is None:
                continue
            of_logits = found.exp_().sub_(probabilities)
            if slope is not None:
                of_logits.mul_(slope)
            weight = student.weight
            gradient[part] = (of_logits.to(weight.dtype) @ weight).mul_(student.scale)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Any) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None].to(gradient.dtype), None, None, None, None
