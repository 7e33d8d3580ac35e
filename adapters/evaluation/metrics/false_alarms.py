"""False alarms and misses: labels at one end of the order answered as labels at the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from adapters.evaluation.case import Case
from adapters.evaluation.metrics.metric import Judging, Measurement, share


class FalseAlarms:
    """Over all labelled examples and over the truly low ones; misses likewise over the truly high ones."""

    name = "false_alarms"
    figures = ("false_alarms", "false_alarms_of_low", "misses", "misses_of_high")
    needs: Literal["false alarm"] = "false alarm"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        rule = judging.false_alarm
        low, high = (rule.low, rule.high) if rule is not None else (frozenset[str](), frozenset[str]())
        labelled = [case.asked and case.true_label is not None for case in cases]
        truly_low = [case.asked and case.true_label in low for case in cases]
        truly_high = [case.asked and case.true_label in high for case in cases]
        alarms = [t and case.predicted in high for t, case in zip(truly_low, cases, strict=True)]
        misses = [t and case.predicted in low for t, case in zip(truly_high, cases, strict=True)]
        form = f"true and answered label {rule.text}" if rule is not None else ""
        return (
            _rate("false_alarms", "False alarms", alarms, labelled, form),
            _rate("false_alarms_of_low", "False alarms of low", alarms, truly_low),
            _rate("misses", "Misses", misses, labelled, "the reverse of a false alarm"),
            _rate("misses_of_high", "Misses of high", misses, truly_high),
        )


def _rate(name: str, title: str, hits: Sequence[bool], among: Sequence[bool], note: str = "") -> Measurement:
    return share(name, title, hits, among, higher_is_better=False, note=note)
