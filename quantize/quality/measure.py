"""Original and quantised base over the same rows, one row at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.evaluation.interval import bootstrap
from bases.progress import Progress, log_progress
from quantize.quality.errors import QualityError
from quantize.quality.figures import Figure, QualityFigures
from quantize.quality.log_odds import base_rounding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DRAWS = 1000
# A row's log probabilities over the vocabulary are made for so many positions at a time.
_POSITIONS = 256
_SAY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _RowFigures:
    """Per predicted token of one row: nats and agreement, each [tokens]."""

    original_nats: NDArray[np.float64]
    quantised_nats: NDArray[np.float64]
    kl_nats: NDArray[np.float64]
    same: NDArray[np.float64]


def measure_quality(
    original: Any,
    quantised: Any,
    rows: Sequence[Sequence[int]],
    *,
    prompts: Sequence[Sequence[int]] = (),
    answer_tokens: int = 16,
    seed: int = 0,
    progress: Progress = log_progress,
    row_kl_nats: list[float] | None = None,
) -> QualityFigures:
    """Compare two models of one vocabulary on rows of token ids, each of at least two tokens.

    The models are transformers or PEFT models on the CPU (`load_as_served`), or anything that takes `input_ids`
    and gives `.logits`. `prompts` are token ids of chat prompts that end where the assistant's turn begins; with
    them `base_rounding` is measured. `row_kl_nats` takes the mean KL of each row, for comparisons in pairs. Needs
    the logits of one row of both models in memory. Raises ValueError without rows, QualityError where a model
    gives no numbers.
    """
    import torch

    if not rows or min(map(len, rows)) < 2:
        raise ValueError("quality is measured on rows of at least two tokens, and at least one of them")
    started = said_at = time.monotonic()
    measured: list[_RowFigures] = []
    with torch.inference_mode():
        for number, row in enumerate(rows, start=1):
            measured.append(_measure_row(original, quantised, row))
            if time.monotonic() - said_at > _SAY_SECONDS:
                said_at = time.monotonic()
                progress(f"Measuring the quality: row {number} of {len(rows)}")
    rounding, num_rounding = None, 0
    if prompts:
        progress(f"Measuring the rounding of answers to {len(prompts)} prompts")
        rounding, num_rounding = base_rounding(original, quantised, prompts, num_tokens=answer_tokens)
    if row_kl_nats is not None:
        row_kl_nats += [float(row.kl_nats.mean()) for row in measured]
    return _summarise(measured, rounding, num_rounding, seed=seed, started=started)


def _measure_row(original: Any, quantised: Any, row: Sequence[int]) -> _RowFigures:
    import numpy as np
    import torch

    ids = torch.tensor([list(row)])
    both = [model(input_ids=ids, use_cache=False).logits[0, :-1] for model in (original, quantised)]
    targets = ids[0, 1:]
    parts: list[list[NDArray[np.float64]]] = [[], [], [], []]
    for start in range(0, len(targets), _POSITIONS):
        part = slice(start, start + _POSITIONS)
        left, right = (torch.log_softmax(logits[part].float(), dim=-1) for logits in both)
        index = targets[part][:, None]
        shares = left.exp()
        # A token that cannot come has a share of 0 and a log of -inf, whose product is taken for 0.
        kl = torch.where(shares > 0, shares * (left - right), torch.zeros(())).sum(-1)
        for values, kept in zip(
            (-left.gather(1, index)[:, 0], -right.gather(1, index)[:, 0], kl.clamp(min=0.0)),
            parts,
            strict=False,
        ):
            kept.append(values.double().numpy())
        parts[3].append((left.argmax(-1) == right.argmax(-1)).double().numpy())
    figures = _RowFigures(*(np.concatenate(part) for part in parts))
    for name, values in (
        ("original", figures.original_nats),
        ("quantised", figures.quantised_nats + figures.kl_nats),
    ):
        if not np.isfinite(values).all():
            raise QualityError(
                f"The {name} base gives log probabilities that are no finite numbers, so that nothing can be "
                "measured; its weights are broken, or the scheme does not suit it."
            )
    return figures


def _summarise(
    rows: Sequence[_RowFigures], rounding: float | None, num_rounding: int, *, seed: int, started: float
) -> QualityFigures:
    import numpy as np

    tokens = np.array([len(row.kl_nats) for row in rows], dtype=np.float64)
    original, quantised, kl, same = (
        np.array([getattr(row, name).sum() for row in rows])
        for name in ("original_nats", "quantised_nats", "kl_nats", "same")
    )
    every_kl = np.concatenate([row.kl_nats for row in rows])
    row_of = np.repeat(np.arange(len(rows)), tokens.astype(int))
    order = np.argsort(every_kl)

    def mean(sums: NDArray[np.float64]) -> _Statistic:
        return lambda weights: (weights @ sums) / (weights @ tokens)

    def p99(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        # A token counts as often as its row was drawn: the smallest value that 99 % of the weight reaches.
        found = []
        for draw in weights:
            reached = np.cumsum(draw[row_of[order]])
            found.append(every_kl[order[np.searchsorted(reached, 0.99 * reached[-1])]])
        return np.array(found)

    def figure(statistic: _Statistic) -> Figure:
        value = float(statistic(np.ones((1, len(rows))))[0])
        interval = bootstrap(statistic, len(rows), draws=_DRAWS, seed=seed) if len(rows) > 1 else None
        return Figure(
            value=value, low=interval[0] if interval else None, high=interval[1] if interval else None
        )

    return QualityFigures(
        num_rows=len(rows),
        num_tokens=int(tokens.sum()),
        original_perplexity=figure(lambda weights: np.exp(mean(original)(weights))),
        quantised_perplexity=figure(lambda weights: np.exp(mean(quantised)(weights))),
        perplexity_ratio=figure(lambda weights: np.exp(mean(quantised - original)(weights))),
        mean_kl_nats=figure(mean(kl)),
        p99_kl_nats=figure(p99),
        top1_agreement=figure(mean(same)),
        base_rounding=rounding,
        num_rounding_tokens=num_rounding,
        seconds=time.monotonic() - started,
    )


_Statistic = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]
