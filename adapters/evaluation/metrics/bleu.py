"""BLEU as sacrebleu computes it: https://aclanthology.org/W18-6319"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from adapters.evaluation.case import Case
from adapters.evaluation.interval import Statistic
from adapters.evaluation.metrics.metric import Judging, Measurement
from adapters.evaluation.metrics.words import has_cjk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ORDER = 4


class Bleu:
    """Corpus BLEU; with Chinese in any reference its tokenizer is `zh`, which leaves other text to 13a's rules."""

    name = "bleu"
    figures = ("bleu",)
    needs: Literal["answers"] = "answers"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        del judging
        from sacrebleu.metrics.bleu import BLEU

        asked = [index for index, case in enumerate(cases) if case.asked and case.reference.strip()]
        if not asked:
            return (_figure(0, None, None, "no example has a reference answer"),)
        chinese = any(has_cjk(cases[index].reference) for index in asked)
        bleu = BLEU(tokenize="zh" if chinese else "13a", effective_order=False)
        answers = [cases[index].text for index in asked]
        references = [cases[index].reference for index in asked]
        value = bleu.corpus_score(answers, [references]).score
        signature = str(bleu.get_signature())
        return (_figure(len(asked), float(value), _statistic(cases, asked, chinese=chinese), signature),)


def _statistic(cases: Sequence[Case], asked: Sequence[int], *, chinese: bool) -> Statistic:
    """Corpus BLEU of any draw: a sum of per-sentence counts, put through sacrebleu's own formula."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    sentence = BLEU(tokenize="zh" if chinese else "13a", effective_order=True)
    counts = np.zeros((len(cases), 2 * _ORDER + 2))
    for index in asked:
        score = sentence.sentence_score(cases[index].text, [cases[index].reference])
        counts[index] = [*score.counts, *score.totals, score.sys_len, score.ref_len]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = (weights @ counts).astype(int)  # whole numbers: weights count draws
        return np.array(
            [
                BLEU.compute_bleu(
                    correct=row[:_ORDER].tolist(),
                    total=row[_ORDER : 2 * _ORDER].tolist(),
                    sys_len=int(row[-2]),
                    ref_len=int(row[-1]),
                    smooth_method="exp",
                ).score
                for row in sums
            ]
        )

    return statistic


def _figure(num_cases: int, value: float | None, statistic: Statistic | None, note: str) -> Measurement:
    return Measurement("bleu", "BLEU", "points", True, num_cases, statistic, note, value=value)
