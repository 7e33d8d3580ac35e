"""One part after the other: what fails, has no time or is interrupted is left out with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from benchmarks.load.bench import Bench
from benchmarks.load.errors import LoadOptionError, NothingMeasuredError
from benchmarks.load.figures.validity import Finding
from benchmarks.load.own_gateway import OwnGateway
from benchmarks.load.report.plots import KINDS
from benchmarks.load.suite import measures
from benchmarks.load.suite.budget import Budget, Need
from benchmarks.load.suite.conduct import INTERRUPTED, Outcome, conduct
from benchmarks.load.suite.parts import BY_KEY, PARTS, Part, parse_parts
from benchmarks.load.suite.stage import Measured, Stage
from tests.benchmarks.load.suite.example import bench, run


def stage(capacity: float | None = None) -> Stage:
    gateway = cast("OwnGateway", None)  # parts of these tests have none
    return Stage(gateway, bench(), (1,), capacity, lambda _: None, lambda _: None)


def part(key: str, measure: Callable[[Stage], Measured], need: Need | None = None) -> Part:
    return Part(key, key, "?", need or Need(1), measure, lambda _: ())


def conducted(*parts: Part, minutes: float = 10.0, capacity: float | None = None) -> Outcome:
    return conduct(parts, stage(capacity), Budget(minutes))


def fails(_: Stage) -> Measured:
    raise NothingMeasuredError("nobody answered")


def is_interrupted(_: Stage) -> Measured:
    raise KeyboardInterrupt


def brings(*names: str) -> Callable[[Stage], Measured]:
    return lambda _: Measured([run(name) for name in names])


def test_a_part_that_fails_costs_no_other():
    outcome = conducted(part("a", fails), part("b", brings("one")))
    assert outcome.left_out == {"a": "nobody answered"}
    assert list(outcome.done) == ["b"]


def test_an_interrupt_leaves_what_is_complete():
    outcome = conducted(part("a", brings("one")), part("b", is_interrupted), part("c", brings("two")))
    assert list(outcome.done) == ["a"]
    assert outcome.left_out == {"b": INTERRUPTED, "c": INTERRUPTED}
    assert outcome.interrupted


def test_a_part_without_time_is_left_out():
    outcome = conducted(part("a", brings("one"), Need(1)), minutes=0.1)
    assert not outcome.done
    assert "no time" in outcome.left_out["a"]


def test_the_last_closed_loop_tells_the_capacity_of_the_parts_after_it():
    seen: list[float | None] = []

    def looks(stage: Stage) -> Measured:
        seen.append(stage.capacity_req_s)
        return Measured([])

    loops = [run("slow", every_seconds=1.0), run("fast", every_seconds=0.05)]
    conducted(part("closed", lambda _: Measured(loops)), part("b", looks))
    conducted(part("closed", lambda _: Measured(loops)), part("b", looks), capacity=3.0)
    assert seen == [pytest.approx(20.0, rel=0.02), 3.0]


def test_each_part_is_told_its_lengths():
    told: list[tuple[float, float]] = []

    def looks(stage: Stage) -> Measured:
        told.append((stage.bench.settings.warmup_seconds, stage.bench.settings.seconds))
        return Measured([])

    conducted(part("a", looks, Need(1, warmup=0.5)), part("b", looks, Need(1, warmup=0.1, window=0.5)))
    (long_warmup, window), (short_warmup, half) = told
    assert long_warmup == pytest.approx(0.5 * window, abs=0.1)
    assert short_warmup == pytest.approx(0.2 * half, abs=0.2)


def test_no_part_sends_the_texts_of_another():
    texts: set[str] = set()

    def looks(stage: Stage) -> Measured:
        texts.add(stage.bench.prompts.prompt(0, 16))
        return Measured([])

    conducted(part("a", looks), part("b", looks))
    assert len(texts) == 2


def test_rates_end_with_the_first_that_is_not_held(monkeypatch):
    asked: list[tuple[str, str]] = []

    def fake(self: Bench, name: str, arrivals, **_):
        asked.append((name, arrivals.text))
        found = run(name)
        if name.startswith("0.8"):
            found.findings.append(Finding("unsustained", "it grows", invalid=False))
        return found

    monkeypatch.setattr(Bench, "run", fake)
    measured = measures.open_loop(stage(capacity=10.0))
    assert asked == [("0.5 x capacity", "poisson:5"), ("0.8 x capacity", "poisson:8")]
    assert len(measured.runs) == 2


def test_both_mixes_are_asked_at_the_same_moments(monkeypatch):
    schedules = {}
    texts = set()

    def fake(self: Bench, name: str, arrivals, *, seed: int, **_):
        schedules[name] = self.schedule(arrivals, seed=seed).arrivals
        texts.add(self.prompts.prompt(0, 16))
        return run(name)

    monkeypatch.setattr(Bench, "run", fake)
    measures.mixes(stage(capacity=10.0))
    uniform, skewed = schedules.values()
    assert [one.at_seconds for one in uniform] == [one.at_seconds for one in skewed]
    assert len(texts) == 2
    assert [one.adapter for one in uniform] != [one.adapter for one in skewed]


def test_parts_are_chosen_by_key_in_their_own_order():
    assert parse_parts("all", concurrency=3, capacity_req_s=None)[0].need.runs == 6
    chosen = parse_parts("idle, closed", concurrency=1, capacity_req_s=None)
    assert [one.key for one in chosen] == ["closed", "idle"]


@pytest.mark.parametrize(
    ("text", "told"), [("", "give all"), ("closed,x", "give all"), ("swap", "--capacity")]
)
def test_parts_that_cannot_be_measured_are_refused(text, told):
    with pytest.raises(LoadOptionError, match=told):
        parse_parts(text, concurrency=1, capacity_req_s=None)


def test_every_part_has_a_key_and_plots_of_its_own_kind():
    assert len(BY_KEY) == len(PARTS)
    assert {kind for one in PARTS for kind in one.plots} <= {*KINDS, "tax"}
