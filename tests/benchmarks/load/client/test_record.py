"""What one request tells of itself, with times that can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load.client.record import Record, read_records, write_records


def streamed(
    sent: float, times: list[float], *, tokens: int | None = None, due: float | None = None
) -> Record:
    return Record(
        0,
        sent if due is None else due,
        sent,
        None,
        len(times),
        outcome="ok",
        event_seconds=times,
        done_seconds=times[-1],
        completion_tokens=tokens or len(times),
    )


def test_latencies_count_from_when_it_was_due_and_ttft_from_sending_as_well():
    record = streamed(1.0, [1.5, 1.7, 1.9], due=0.9)
    assert record.ttft_seconds == pytest.approx(0.6)
    assert record.ttft_sent_seconds == pytest.approx(0.5)
    assert record.tpot_seconds == pytest.approx(0.2)
    assert record.e2e_seconds == pytest.approx(1.0)
    assert record.chunk_gaps_seconds == pytest.approx([0.2, 0.2])


def test_an_answer_of_one_token_has_no_time_per_token():
    assert streamed(1.0, [1.5]).tpot_seconds is None


def test_tokens_are_counted_by_the_server_and_placed_by_their_events():
    record = streamed(0.0, [1.0, 2.0, 3.0, 4.0], tokens=8)  # two to an event
    assert record.tokens_between(1.5, 3.5) == 4.0
    assert record.tokens_between(3.5, 4.0) == 2.0
    assert record.tokens_between(4.0, 9.0) == 0.0


def test_tokens_of_an_answer_in_one_piece_are_spread_over_its_time():
    record = Record(0, 10.0, 10.0, None, 8, outcome="ok", done_seconds=14.0, completion_tokens=8)
    assert record.tokens_between(12.0, 13.0) == pytest.approx(2.0)
    assert record.tokens_between(0.0, 99.0) == pytest.approx(8.0)


def test_why_it_failed_is_told_in_few_words():
    assert streamed(0.0, [1.0]).failure is None
    assert Record(0, 0.0, 0.0, None, 1, outcome="error", code="engine_dead").failure == "error: engine_dead"
    assert Record(0, 0.0, 0.0, None, 1, outcome="cut").failure == "cut"


def test_records_survive_their_file_whatever_is_written_beside_them(tmp_path: Path):
    records = [
        streamed(0.0, [0.5, 1.0]),
        Record(1, 1.0, 1.0000001, "a", 4, outcome="timeout", code="stalled"),
    ]
    path = tmp_path / "records.jsonl"
    write_records(path, records[:1])
    write_records(path, records[1:], append=True)
    found = read_records(path)
    assert [record.to_dict() for record in found] == [record.to_dict() for record in records]
    write_records(path, records, run="first")
    assert path.read_text().startswith('{"run": "first", "number": 0')
