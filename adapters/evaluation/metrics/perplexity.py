"""Perplexity of the reference answers: how surprised the model is by what it should say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from adapters.evaluation.case import Case
from adapters.evaluation.metrics.metric import Judging, Measurement, weighted_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Perplexity:
    """exp of the mean negative log-likelihood over all learned tokens, each token counted alike."""

    name = "perplexity"
    figures = ("perplexity",)
    needs: Literal["likelihoods"] = "likelihoods"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        import numpy as np

        known = [case.likelihood for case in cases]
        nats = np.array([each.nats if each is not None else 0.0 for each in known])
        tokens = np.array([float(each.num_tokens) if each is not None else 0.0 for each in known])
        total = int(tokens.sum())
        num_cases = sum(1 for each in known if each is not None and each.num_tokens)
        note = f"of the reference answers, over {total} learned tokens"
        if num_cases < len(cases):
            note += f" of {num_cases} of {len(cases)} examples; the others do not fit the context"
        mean_nats = weighted_mean(nats, tokens)

        def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(over="ignore"):
                values: NDArray[np.float64] = np.exp(mean_nats(weights))
            return values

        return (
            Measurement(
                "perplexity",
                "Perplexity",
                "perplexity",
                False,
                num_cases,
                statistic if total else None,
                note if total else judging.likelihood_reason,
            ),
        )
