"""ROUGE-1, ROUGE-2 and ROUGE-L, own: the usual package has no wheel and knows no Chinese.

F1 of word overlap as in https://aclanthology.org/W04-1013, with words as `words_of` finds them: CJK by character,
no stemming.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from adapters.evaluation.case import Case
from adapters.evaluation.metrics.metric import Judging, Measurement, weighted_mean
from adapters.evaluation.metrics.words import words_of


def rouge_n(answer: str, reference: str, n: int) -> float:
    """F1 of the n-grams that both have; 0 where either has none."""
    said, wanted = _grams(words_of(answer), n), _grams(words_of(reference), n)
    return _f1((said & wanted).total(), said.total(), wanted.total())


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words; 0 where either has none."""
    said, wanted = words_of(answer), words_of(reference)
    return _f1(_longest_common(said, wanted), len(said), len(wanted))


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for index, other in enumerate(right, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == other else max(above, row[index - 1])
            diagonal = above
    return row[-1]


def _f1(common: int, said: int, wanted: int) -> float:
    return 2 * common / (said + wanted) if said and wanted else 0.0


class Rouge:
    """Mean over the examples that were asked."""

    name = "rouge"
    figures = ("rouge_1", "rouge_2", "rouge_l")
    needs: Literal["answers"] = "answers"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        del judging
        import numpy as np

        asked = np.array([float(case.asked) for case in cases])
        pairs = [(case.text, case.reference) if case.asked else ("", "") for case in cases]
        figures = (
            ("rouge_1", "ROUGE-1", [rouge_n(said, wanted, 1) for said, wanted in pairs]),
            ("rouge_2", "ROUGE-2", [rouge_n(said, wanted, 2) for said, wanted in pairs]),
            ("rouge_l", "ROUGE-L", [rouge_l(said, wanted) for said, wanted in pairs]),
        )
        total = int(asked.sum())
        return tuple(
            Measurement(
                name,
                title,
                "score",
                True,
                total,
                weighted_mean(np.array(values), asked) if total else None,
                "" if total else "no example asks anything",
            )
            for name, title, values in figures
        )
