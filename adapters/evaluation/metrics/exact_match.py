"""Exact match: the answer is the reference, to the character (strict) or after normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from adapters.evaluation.case import Case
from adapters.evaluation.metrics.metric import Judging, Measurement, share
from adapters.evaluation.metrics.words import normalised


class ExactMatch:
    """Strict: equal but for white space at the ends. Normalised: see `words.normalised`."""

    name = "exact_match"
    figures = ("exact_match", "exact_match_strict")
    needs: Literal["answers"] = "answers"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        del judging
        asked = [case.asked for case in cases]
        strict = [case.text.strip() == case.reference.strip() for case in cases]
        loose = [normalised(case.text) == normalised(case.reference) for case in cases]
        return (
            share("exact_match", "Exact match", loose, asked, note="case, ends and width ignored"),
            share("exact_match_strict", "Exact, strict", strict, asked),
        )
