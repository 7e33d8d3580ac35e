"""From bytes on the wire to the figures of one block."""

from __future__ import annotations

import json

import pytest

from benchmarks.closed_loop.block import Cost, full_load_window, measure_block
from benchmarks.closed_loop.comparison import cell, compare
from benchmarks.closed_loop.dialect import read_events, read_payload, request_body, split_events
from benchmarks.closed_loop.sample import Sample, Stage

QUIET = Cost(0.2, 0.5, 0.1, 0.0, 0.01)


def streamed(worker: int, stage: Stage, sent: float, times: list[float], **more) -> Sample:
    return Sample(
        worker,
        stage,
        0,
        sent,
        done_seconds=times[-1],
        event_seconds=times,
        completion_tokens=len(times),
        prompt_tokens=32,
        **more,
    )


def block_of(samples, *, contender="vllm", number=0, cost=QUIET, concurrency=1):
    return measure_block(
        samples, cost, part="equal", contender=contender, concurrency=concurrency, round_number=number
    )


def test_an_event_has_the_time_of_its_last_byte():
    arrivals = [
        (1.0, b'event: delta\ndata: {"te'),
        (2.0, b'xt":"a"}\n\ndata: {"text":"b"}\n\n'),
        (3.0, b"data: [DONE]"),
    ]
    assert list(split_events(arrivals)) == [(2.0, '{"text":"a"}'), (2.0, '{"text":"b"}')]


def test_the_closing_mark_is_no_event():
    arrivals = [(1.0, b'data: {"choices":[{"text":"x"}]}\r\n\r\ndata: [DONE]\n\n')]
    assert [(seconds, event.text) for seconds, event in read_events(arrivals)] == [(1.0, "x")]


@pytest.mark.parametrize(
    ("payload", "text", "tokens", "error"),
    [
        ({"index": 0, "text": "a"}, "a", None, None),
        (
            {"finish_reason": "length", "choices": [{"index": 0}], "usage": {"completion_tokens": 3}},
            "",
            3,
            None,
        ),
        ({"choices": [{"text": "b"}], "usage": None}, "b", None, None),
        ({"choices": [], "usage": {"completion_tokens": 4}}, "", 4, None),
        ({"error": {"code": "engine_dead", "message": "gone"}}, "", None, "engine_dead: gone"),
        ({"error": "plain words"}, "", None, "plain words"),
    ],
)
def test_both_dialects_are_read_alike(payload, text, tokens, error):
    event = read_payload(payload)
    assert (event.text, event.completion_tokens, event.error) == (text, tokens, error)


@pytest.mark.parametrize("dialect", ["generate", "completions"])
def test_every_request_asks_for_the_same_work(dialect):
    body = request_body(dialect, model="m", prompt="p", max_tokens=7)
    assert body["max_tokens"] == 7
    assert json.dumps(body)
    assert body["temperature"] == 0.0
    assert body["ignore_eos"] is True


def test_latencies_count_from_sending():
    sample = streamed(0, "measured", 1.0, [1.5, 1.7, 1.9])
    assert sample.ttft_seconds == pytest.approx(0.5)
    assert sample.tpot_seconds == pytest.approx(0.2)
    assert sample.e2e_seconds == pytest.approx(0.9)


def test_an_answer_of_one_token_has_no_time_per_token():
    assert streamed(0, "measured", 1.0, [1.5]).tpot_seconds is None


def test_tokens_are_counted_by_the_server_and_placed_by_their_events():
    sample = streamed(0, "measured", 0.0, [1.0, 2.0, 3.0, 4.0])
    sample.completion_tokens = 8  # two to an event
    assert sample.tokens_between(1.5, 3.5) == 4.0
    assert sample.tokens_between(3.5, 4.0) == 2.0
    assert sample.tokens_between(4.0, 9.0) == 0.0


def test_tokens_of_an_answer_in_one_piece_are_spread_over_its_time():
    sample = Sample(0, "measured", 0, 10.0, done_seconds=14.0, completion_tokens=8)
    assert sample.tokens_between(12.0, 13.0) == pytest.approx(2.0)
    assert sample.tokens_between(0.0, 99.0) == pytest.approx(8.0)


def test_the_window_is_where_every_worker_has_work():
    samples = [
        streamed(0, "warmup", 0.0, [1.0]),
        streamed(1, "warmup", 0.0, [2.0]),
        streamed(0, "measured", 1.0, [2.0, 5.0]),
        streamed(1, "measured", 2.0, [3.0, 6.0]),
        streamed(0, "cooldown", 5.0, [5.5]),
    ]
    assert full_load_window(samples) == (2.0, 5.0)
    block = block_of(samples)
    assert block.output_tok_s == pytest.approx(2 / 3)  # at 3.0 and 5.0; those at 2.0 came before
    assert (block.attempted, block.answered) == (2, 2)
    assert block.tokens_seen == 7
    assert block.http_cpu_ms_per_token == pytest.approx(200 / 7)


def test_a_block_without_an_answer_has_no_figures_and_tells_why():
    failed = Sample(0, "measured", 0, 0.0, done_seconds=1.0, error="HTTP 503: draining")
    block = block_of([failed])
    assert (block.attempted, block.answered, block.errors) == (1, 0, {"HTTP 503: draining": 1})
    assert block.output_tok_s is None
    assert block.ttft_p50_seconds is None


def test_failed_requests_do_not_enter_the_latencies():
    bad = streamed(0, "measured", 0.0, [9.0], error="cut off: no usage")
    good = streamed(0, "measured", 0.0, [0.5, 1.0])
    assert block_of([bad, good]).ttft_seconds == [0.5]


def blocks_of_rate(contender: str, ttfts: list[float], cost: Cost = QUIET):
    return [
        block_of(
            [streamed(0, "measured", 0.0, [ttft, ttft + 1.0])], contender=contender, number=number, cost=cost
        )
        for number, ttft in enumerate(ttfts)
    ]


def test_added_time_is_the_median_over_pairs_with_both_ends():
    comparison = compare(
        blocks_of_rate("gateway-generate", [0.101, 0.103, 0.100]),
        blocks_of_rate("vllm", [0.100, 0.100, 0.100]),
    )
    added = comparison.added_ttft_seconds
    assert added is not None
    assert (added.median, added.low, added.high) == pytest.approx((0.001, 0.0, 0.003))


def test_a_comparison_made_while_the_machine_was_busy_says_so():
    busy = Cost(0.2, 0.5, 0.1, 0.0, 0.4)
    comparison = compare(blocks_of_rate("gateway-generate", [0.1], busy), blocks_of_rate("vllm", [0.1]))
    assert comparison.noisy


def test_a_cell_pools_the_requests_of_all_rounds():
    pooled = cell(blocks_of_rate("vllm", [0.1, 0.2, 0.6]))
    assert pooled.ttft_p50_seconds == pytest.approx(0.2)
    assert pooled.ttft_p99_seconds == pytest.approx(0.592)
    assert (pooled.attempted, pooled.answered) == (3, 3)
