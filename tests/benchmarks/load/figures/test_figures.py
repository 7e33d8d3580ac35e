"""From raw records to figures: made-up times whose figures are known."""

from __future__ import annotations

import pytest

from benchmarks.load.client.record import Outcome, Record
from benchmarks.load.figures.figures import adapter_figures, fairness, reached_req_s, run_figures, timeline
from benchmarks.load.figures.quantiles import describe
from benchmarks.load.figures.slo import Slo, parse_slo
from benchmarks.load.figures.validity import falls_behind, findings
from benchmarks.load.window import Window

WINDOW = Window(10.0, 20.0)
SLO = Slo("test", ttft_seconds=0.5, tpot_seconds=0.1)


def answered(
    due: float, *, ttft: float = 0.2, tpot: float = 0.05, tokens: int = 5, adapter=None, late: float = 0.0
) -> Record:
    times = [due + ttft + place * tpot for place in range(tokens)]
    return Record(
        0,
        due,
        due + late,
        adapter,
        tokens,
        outcome="ok",
        status=200,
        event_seconds=times,
        done_seconds=times[-1],
        prompt_tokens=8,
        completion_tokens=tokens,
    )


def ended(due: float, outcome: Outcome, code: str | None = None) -> Record:
    return Record(0, due, due, None, 5, outcome=outcome, code=code, done_seconds=due + 0.01)


def test_latency_counts_from_when_a_request_was_due():
    figures = run_figures([answered(12.0, late=0.1)], WINDOW, SLO)
    assert figures["ttft_seconds"]["p50"] == pytest.approx(0.2)
    assert figures["ttft_sent_seconds"]["p50"] == pytest.approx(0.1)
    assert figures["tpot_seconds"]["p50"] == pytest.approx(0.05)
    assert figures["e2e_seconds"]["p50"] == pytest.approx(0.4)
    assert figures["normalised_seconds"]["p50"] == pytest.approx(0.08)
    assert figures["dispatch_delay_seconds"]["max"] == pytest.approx(0.1)


def test_tokens_count_where_they_fall_whosever_request_it_was():
    before = answered(9.9, ttft=0.05, tpot=0.1)  # tokens at 9.95, 10.05, ..., 10.35
    after = answered(19.9, ttft=0.05, tpot=0.1)  # one at 19.95, the rest later
    figures = run_figures([before, after], WINDOW, SLO)
    assert figures["output_tok_s"] == pytest.approx((4 + 1) / 10)
    assert figures["counts"]["measured"] == 1


def test_rejections_failures_and_cancellations_are_told_apart():
    records = [
        answered(11.0),
        ended(12.0, "rejected", "queue_full"),
        ended(13.0, "error", "engine_dead"),
        ended(14.0, "cut", "no_last_event"),
        ended(15.0, "cancelled"),
        ended(16.0, "unloaded"),
        ended(25.0, "error"),
    ]
    figures = run_figures(records, WINDOW, SLO)
    assert figures["counts"] == {
        "measured": 6,
        "ok": 1,
        "rejected": 1,
        "cancelled": 1,
        "unloaded": 1,
        "unfinished": 0,
        "failed": 2,
    }
    assert figures["failures"] == {
        "rejected: queue_full": 1,
        "error: engine_dead": 1,
        "cut: no_last_event": 1,
        "cancelled": 1,
        "unloaded": 1,
    }
    assert figures["slo_attainment"] == 0.25
    assert figures["rejection_seconds"]["p50"] == pytest.approx(0.01)


def test_goodput_needs_both_limits_and_a_whole_answer():
    records = [answered(11.0), answered(12.0, ttft=0.6), answered(13.0, tpot=0.2), ended(14.0, "rejected")]
    figures = run_figures(records, WINDOW, SLO)
    assert figures["goodput_req_s"] == pytest.approx(0.1)
    assert figures["slo_attainment"] == 0.25


def test_an_answer_of_one_token_has_no_time_per_token():
    figures = run_figures([answered(11.0, tokens=1)], WINDOW, SLO)
    assert figures["tpot_seconds"] is None
    assert figures["slo_attainment"] == 1.0


def test_an_answer_in_one_piece_is_good_when_it_comes_as_soon_as_its_length_allows():
    whole = Record(0, 11.0, 11.0, None, 5, outcome="ok", done_seconds=11.89, completion_tokens=5)
    assert SLO.good(whole)
    whole.done_seconds = 12.0
    assert not SLO.good(whole)


def test_figures_by_adapter_begin_with_the_one_asked_most_and_give_fairness():
    records = [answered(11.0 + place, adapter="busy") for place in range(4)]
    records += [answered(15.0, adapter="slow", ttft=0.9), answered(16.0)]
    found = adapter_figures(records, WINDOW, SLO)
    assert list(found) == ["busy", "base", "slow"]
    assert found["slow"]["slo_attainment"] == 0.0
    assert fairness(found) == pytest.approx(0.5)
    assert fairness({"base": found["base"]}) is None


def test_the_time_line_has_every_request_once():
    records = [answered(11.0), ended(12.5, "rejected"), ended(13.5, "error")]
    rows = timeline(records, 20.0)
    assert sum(row["ok"] for row in rows) == 1
    assert rows[12]["rejected"] == 1
    assert rows[13]["failed"] == 1
    assert sum(row["tokens"] for row in rows) == pytest.approx(5)


def test_an_interval_that_the_values_do_not_bound_is_open():
    found = describe([float(value) for value in range(50)])
    assert found is not None
    assert found["p50_interval"] == [17.0, 32.0]
    assert found["p99_interval"][1] is None
    assert describe([]) is None


def test_a_client_that_was_late_makes_a_run_invalid():
    records = [answered(10.0 + place / 100, late=0.05) for place in range(200)]
    found = findings(run_figures(records, WINDOW, SLO), records, WINDOW, closed=False, late_for_a_sender=3)
    assert [(finding.code, finding.invalid) for finding in found] == [
        ("client_late", True),
        ("senders_exhausted", True),
    ]
    in_a_closed_loop = findings(
        run_figures(records, WINDOW, SLO), records, WINDOW, closed=True, late_for_a_sender=0
    )
    assert in_a_closed_loop == []


def test_a_server_that_falls_behind_is_recognised_and_one_that_keeps_up_is_not():
    window = Window(0.0, 40.0)
    steady = [answered(place / 5, ttft=0.2 + 0.01 * (place % 7)) for place in range(200)]
    behind = [answered(place / 5, ttft=0.2 + place / 20) for place in range(200)]
    assert not falls_behind(steady, window)
    assert falls_behind(behind, window)


def test_limits_have_names_or_are_given():
    assert parse_slo("chat").ttft_seconds == 0.2
    assert parse_slo("own:ttft=1.5,tpot=0.25").tpot_seconds == 0.25


def test_what_a_closed_loop_reached_is_told_by_tokens_whatever_answers_ended_in_the_window():
    # Two workers in step, an answer of 5 tokens every 4 s, from before the window until after it.
    records = [answered(due, ttft=0.8, tpot=0.8) for due in (8.5, 12.5, 16.5) for _ in range(2)]
    figures = run_figures(records, WINDOW, SLO)
    assert figures["req_s"] == pytest.approx(0.4)  # two batches ended in 10 s
    assert reached_req_s(figures) == pytest.approx(2 / 4, abs=0.03)
    assert reached_req_s({**figures, "completion_tokens": None}) == figures["req_s"]
