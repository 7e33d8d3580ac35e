"""Whether a recovery adapter pays: what it takes off the divergence on rows that it never saw, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.evaluation.interval import bootstrap
from quantize.quality.figures import Figure
from quantize.recovery.divergence import Head, causal_model, last_states, token_divergences

_DRAWS = 1000


def row_divergences(teacher: Any, student: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """Mean KL(teacher || student) per token of each row, in nats; both are causal models, PEFT's or plain."""
    import torch

    heads = (Head.of(teacher), Head.of(causal_model(student)))
    found = []
    with torch.inference_mode():
        for row in rows:
            states = [last_states(model, [row]) for model in (teacher, student)]
            found.append(float(token_divergences(states[0], heads[0], states[1], heads[1]).mean()))
    return found


def gain_of(before: Sequence[float], after: Sequence[float], *, seed: int) -> Figure:
    """Mean of `before` less `after` over rows, with the interval of the paired bootstrap over rows.

    Without an interval where there is one row.
    """
    import numpy as np

    differences = np.array(before) - np.array(after)
    value = float(differences.mean())
    if len(differences) < 2:
        return Figure(value=value)
    interval = bootstrap(
        lambda weights: (weights @ differences) / weights.sum(axis=1),
        len(differences),
        draws=_DRAWS,
        seed=seed,
    )
    return Figure(value=value, low=interval[0], high=interval[1]) if interval else Figure(value=value)


def is_sure(gain: Figure) -> bool:
    """Whether the whole interval is above zero; never without one."""
    return gain.low is not None and gain.low > 0.0
