"""The loss of learned tokens alone: the vocabulary product is made where a token is learned and nowhere else."""

from __future__ import annotations

from typing import Any

import torch

from adapters.training.collate import NOT_LEARNED

MAX_LOGITS_BYTES = 64 * 1024**2


def supervised_logprobs(
    hidden_states: Any,
    lm_head_weight: Any,
    bias: Any,
    labels: Any,
    *,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    max_logits_bytes: int = MAX_LOGITS_BYTES,
) -> Any:
    """Log-probability of each learned token, in the batch's order: [n] float32, differentiable.

    `hidden_states` [B, T, hidden] of the last layer, `lm_head_weight` [vocabulary, hidden], `bias` [vocabulary] or
    None, `labels` [B, T] with -100 where nothing is learned; position t predicts label t + 1. Logits are
    `logit_scale * product`, then `softcap * tanh(logits / softcap)` where given, and exist for as many tokens at a
    time as float32 logits fit into `max_logits_bytes`. Products run in autocast's type, sums in float32.
    Under ZeRO-3 and FSDP call it inside the model's forward, where the head's weights are whole.
    """
    from trl.trainer.utils import maybe_gather_lm_head_ctx

    weight, bias = _whole(lm_head_weight), _whole(bias)
    learned = labels[:, 1:] != NOT_LEARNED
    targets = labels[:, 1:][learned].to(weight.device)
    states = hidden_states[:, :-1][learned].to(weight.device)
    with maybe_gather_lm_head_ctx(weight, bias):
        if weight.requires_grad or (bias is not None and bias.requires_grad):
            return _trainable_head(states, weight, bias, targets, logit_scale, softcap, max_logits_bytes)
        rows = max(1, max_logits_bytes // (4 * weight.shape[0]))
        return _FrozenHead.apply(states, weight, bias, targets, logit_scale, softcap, rows)


def token_mean_loss(log_probs: Any, labels: Any, weights: Any, num_items: Any) -> Any:
    """Sum over learned tokens of weight times negative log-probability, divided by `num_items`: a scalar.

    `log_probs` [n] as `supervised_logprobs` gives them for `labels` [B, T]; `weights` [B, T] or None for 1.
    `num_items` is the number of learned tokens in everything that one optimiser step sees, so that a batch gives
    the same gradient in one piece and in several.
    """
    if weights is not None:
        learned = labels[:, 1:] != NOT_LEARNED
        log_probs = log_probs * weights[:, 1:][learned].to(log_probs.device)
    if torch.is_tensor(num_items):
        num_items = num_items.to(log_probs.device)
    return -log_probs.sum() / num_items


def num_learned_tokens(labels: Any) -> int:
    """Labels [B, T] that a loss counts."""
    return int((labels[:, 1:] != NOT_LEARNED).sum())


def logit_transform(config: Any) -> tuple[float, float | None]:
    """`logit_scale` and `softcap` of a model's configuration, as TRL reads them."""
    text = config.get_text_config()
    scale = next(
        (
            float(getattr(text, name))
            for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")
            if getattr(text, name, None) is not None
        ),
        None,
    )
    divisor = getattr(text, "logits_scaling", None)
    if scale is None and divisor is not None:
        scale = float(divisor) if text.model_type == "hyperclovax" else 1.0 / float(divisor)
    softcap = getattr(text, "final_logit_softcapping", None)
    return (1.0 if scale is None else scale), (None if softcap is None else float(softcap))


class _FrozenHead(torch.autograd.Function):  # type: ignore[misc]
    """Log-probabilities under a head that is not trained.

    The gradient for each state, W[target] - softmax @ W, is made with the logits at hand and kept, [n, hidden], so
    that the backward pass only scales it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Any,
        weight: Any,
        bias: Any,
        targets: Any,
        logit_scale: float,
        softcap: float | None,
        rows: int,
    ) -> Any:
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        needs_gradient = ctx.needs_input_grad[0]
        log_probs = states.new_empty(states.shape[0], dtype=torch.float32)
        gradient = torch.empty_like(states, dtype=dtype) if needs_gradient else None
        with torch.autocast(kind, enabled=False):
            weight = weight.to(dtype)
            for start in range(0, states.shape[0], rows):
                part = slice(start, start + rows)
                logits = torch.nn.functional.linear(
                    states[part].to(dtype), weight, None if bias is None else bias.to(dtype)
                ).float()
                if logit_scale != 1.0:
                    logits.mul_(logit_scale)
                if softcap is not None:
                    logits.div_(softcap).tanh_().mul_(softcap)
                slope = None
                if softcap is not None and gradient is not None:
                    slope = 1.0 - (logits / softcap).square_()
                distribution = torch.log_softmax(logits, dim=-1)
                del logits
                target = targets[part, None]
                log_probs[part] = distribution.gather(-1, target)[:, 0]
                if gradient is None:
                    continue
                # d logp / d logits = onehot - p, here with its sign turned.
                distribution.exp_().scatter_add_(-1, target, distribution.new_full(target.shape, -1.0))
                if slope is not None:
                    distribution.mul_(slope)
                torch.mm(distribution.to(dtype), weight, out=gradient[part])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.logit_scale = logit_scale
        ctx.states_dtype = states.dtype
        return log_probs

    @staticmethod
    def backward(ctx: Any, upstream: Any) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        of_states = gradient * (-ctx.logit_scale * upstream)[:, None]
        return of_states.to(ctx.states_dtype), None, None, None, None, None, None


def _trainable_head(
    states: Any,
    weight: Any,
    bias: Any,
    targets: Any,
    logit_scale: float,
    softcap: float | None,
    max_logits_bytes: int,
) -> Any:
    """TRL's function, which makes the logits once more in the backward pass for the gradient of the head."""
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE, ChunkedLogProbFunction

    tokens = max(1, min(states.shape[0], TOKEN_CHUNK_SIZE))
    columns = max(1024, min(weight.shape[0], max_logits_bytes // (4 * tokens)))
    log_probs, *_ = ChunkedLogProbFunction.apply(
        states, weight, bias, targets, 1.0, columns, softcap, logit_scale, ()
    )
    return log_probs


def _whole(parameter: Any) -> Any:
    """A parameter that FSDP2 shards, gathered."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
