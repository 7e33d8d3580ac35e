"""When two sides agree, with numbers that can be worked out by hand, and how it is told."""

from __future__ import annotations

import pytest

from benchmarks.agreement.comparison import Pair, verdicts
from benchmarks.agreement.guidellm import GUIDELLM
from benchmarks.agreement.report import markdown
from benchmarks.agreement.workload import Reading
from benchmarks.surroundings import Surroundings
from tests.benchmarks.agreement.test_tools import CLOSED

SURROUNDINGS = Surroundings("a processor", "cpu", 2, 24.0, "Linux", "3.11", {"vllm": "0"}, None, 0.0)


def pair(ttft: float, tpot: float, factor: float) -> Pair:
    with_first = (ttft * factor + 31 * tpot * factor) / 32
    theirs = Reading(
        8, 0, ttft * factor, tpot * factor, 64.0, {"its TPOT, with the first token, p50": with_first}
    )
    return Pair(Reading(9, 0, ttft, tpot, 64.0, {}), theirs)


@pytest.mark.parametrize(
    ("factors", "agree"), [((1.2, 1.05, 1.0), True), ((1.2, 1.11, 1.0), False), ((0.89, 0.89, 1.5), False)]
)
def test_the_median_of_the_rounds_ratios_decides(factors: tuple[float, ...], agree: bool) -> None:
    found = verdicts([pair(0.2, 0.03, factor) for factor in factors])
    assert [one.metric for one in found] == ["ttft_seconds", "tpot_seconds"]
    assert all(one.agrees is agree for one in found)
    assert found[0].ratio.median == pytest.approx(sorted(factors)[1])


def test_the_report_turns_our_medians_into_the_tools_own_definition() -> None:
    pairs = [pair(0.2, 0.03, 1.0)]
    entry = markdown(
        GUIDELLM,
        CLOSED,
        pairs,
        verdicts(pairs),
        server="A known server",
        truth={"ttft_seconds": 0.2, "tpot_seconds": 0.03},
        command="the command",
        date="2026-01-02",
        surroundings=SURROUNDINGS,
    )
    assert "| TTFT p50 from sending, ms | 200 | 200.0 | 200.0 | 1.000 | yes |" in entry
    assert "its TPOT, with the first token, p50: 35.3 ms; ours by that definition: 35.3" in entry
    assert "answered: 9 of ours (0 failed), 8 of guidellm's (0 failed)" in entry
