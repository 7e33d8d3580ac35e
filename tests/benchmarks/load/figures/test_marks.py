"""What changes of adapters did to single requests."""

from __future__ import annotations

from benchmarks.load.client.record import Record
from benchmarks.load.figures.figures import adapter_figures
from benchmarks.load.figures.marks import mark
from benchmarks.load.figures.slo import PRESETS
from benchmarks.load.verbs import Verb
from benchmarks.load.window import Window


def answered(sent: float, version: str | None, *, adapter: str = "a", ttft: float = 0.1) -> Record:
    return Record(
        0,
        sent,
        sent,
        adapter,
        2,
        outcome="ok",
        status=200,
        event_seconds=[sent + ttft],
        done_seconds=sent + ttft,
        version=version,
    )


def refused(sent: float, status: int = 404) -> Record:
    return Record(0, sent, sent, "a", 2, outcome="error", status=status, done_seconds=sent + 0.01)


def test_the_first_answer_of_a_loaded_version_is_cold() -> None:
    records = [answered(1.0, "a@1"), answered(2.1, "a@1"), answered(2.6, "a@2"), answered(2.7, "a@2")]
    other = answered(2.6, "b@1", adapter="b")
    mark([*records, other], [Verb(2.0, "replace", 0.5, "a", "a@2")])
    assert [record.cold for record in records] == [False, False, True, False]
    assert not other.cold


def test_where_the_server_names_no_version_the_time_tells() -> None:
    records = [answered(2.1, None), answered(2.6, None), answered(2.7, None)]
    mark(records, [Verb(2.0, "replace", 0.5, "a", "a@2")])
    assert [record.cold for record in records] == [False, True, False]


def test_a_404_counts_apart_while_the_adapter_is_gone_and_at_no_other_time() -> None:
    records = [refused(1.0), refused(2.1), refused(3.5), refused(3.6, status=500), refused(5.0)]
    mark(records, [Verb(2.0, "unload", 0.5, "a"), Verb(4.0, "load", 0.5, "a", "a@2")])
    assert [record.outcome for record in records] == ["error", "unloaded", "unloaded", "error", "error"]


def test_verbs_that_failed_mark_nothing() -> None:
    records = [refused(2.1), answered(2.6, None)]
    mark(records, [Verb(2.0, "unload", 0.5, "a", error="no"), Verb(2.0, "replace", 0.1, "a", error="no")])
    assert records[0].outcome == "error"
    assert not records[1].cold


def test_cold_and_warm_are_told_by_adapter() -> None:
    records = [answered(11.0, "a@2", ttft=0.5), answered(12.0, "a@2"), answered(12.0, "b@1", adapter="b")]
    mark(records, [Verb(10.5, "load", 0.1, "a", "a@2")])
    found = adapter_figures(records, Window(10.0, 20.0), PRESETS["content"])
    assert found["a"]["cold_ttft_seconds"]["p50"] == 0.5
    assert found["a"]["warm_ttft_seconds"]["p50"] == 0.1
    assert found["b"]["cold_ttft_seconds"] is found["b"]["warm_ttft_seconds"] is None
