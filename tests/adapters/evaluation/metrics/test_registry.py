"""What each metric says of itself."""

from __future__ import annotations

import pytest

from adapters.evaluation.answer import Likelihood
from adapters.evaluation.labels import FalseAlarmRule
from adapters.evaluation.metrics.metric import Judging
from adapters.evaluation.metrics.registry import METRICS
from tests.adapters.evaluation.conftest import RULE, case

JUDGING = Judging(rule=RULE, false_alarm=FalseAlarmRule(frozenset("01"), frozenset("45"), "0-1:4-5"))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_gives_the_figures_that_it_names(name: str) -> None:
    cases = [
        case(level, f"Risk: {said}", likelihood=Likelihood(2.0, 2)) for level, said in ("04", "11", "54")
    ]
    measured = METRICS[name].measure(cases, JUDGING)
    assert tuple(one.name for one in measured) == METRICS[name].figures
