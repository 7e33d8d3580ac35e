"""Where the time of a request goes, from records whose times are known."""

from __future__ import annotations

import pytest

from benchmarks.load.client.record import Record
from benchmarks.load.figures.stages import STAGES, stage_split
from benchmarks.load.window import Window

WINDOW = Window(10.0, 20.0)
EXPECTED = {
    "late": 0.1,
    "way": 0.02,
    "entry": 0.005,
    "admission": 0.3,
    "engine_queue": 0.1,
    "prefill": 0.2,
    "decode": 0.5,
    "rest": 0.01,
}
TIMING: dict[str, float | None] = {
    "entry_ms": 5.0,
    "admission_ms": 300.0,
    "queue_ms": 400.0,
    "ttft_ms": 605.0,
    "total_ms": 1105.0,
}


def record(
    timing: dict[str, float | None] | None = None, *, due: float = 12.0, stream: bool = True
) -> Record:
    done = due + sum(EXPECTED.values())
    first = due + 0.1 + 0.02 + 0.605
    return Record(
        0,
        due,
        due + 0.1,
        None,
        5,
        outcome="ok",
        event_seconds=[first, done - 0.01] if stream else [],
        done_seconds=done,
        completion_tokens=5,
        server_timing=timing,
    )


def server(**means: float) -> dict[str, object]:
    return {"histograms": {name: {"count": 1, "mean": mean} for name, mean in means.items()}}


def test_answers_that_tell_their_times_are_split_exactly_and_add_up_to_all_of_it() -> None:
    found = stage_split([record(TIMING), record(TIMING, due=25.0)], WINDOW, {})
    assert found is not None
    assert (found["source"], found["count"]) == ("answers", 1)
    assert found["stages"] == pytest.approx(EXPECTED)
    assert found["overhead_seconds"]["p50"] == pytest.approx(0.035)


def test_an_answer_in_one_piece_has_one_way() -> None:
    found = stage_split([record(TIMING, stream=False)], WINDOW, {})
    assert found is not None
    assert found["stages"] == pytest.approx({**EXPECTED, "way": 0.03, "rest": 0.0})


@pytest.mark.parametrize(
    ("source", "means"),
    [
        (
            "gateway",
            {
                "hotswap_stage_seconds/entry": 0.005,
                "hotswap_stage_seconds/admission": 0.3,
                "hotswap_stage_seconds/engine_queue": 0.1,
                "hotswap_stage_seconds/first_token": 0.2,
                "hotswap_stage_seconds/generation": 0.5,
            },
        ),
        (
            "vllm",
            {
                "vllm:request_queue_time_seconds": 0.4,
                "vllm:request_prefill_time_seconds": 0.2,
                "vllm:time_to_first_token_seconds": 0.605,
                "vllm:e2e_request_latency_seconds": 1.105,
            },
        ),
    ],
)
def test_other_answers_are_split_by_the_servers_means(source: str, means: dict[str, float]) -> None:
    found = stage_split([record(), record({**TIMING, "ttft_ms": None})], WINDOW, server(**means))
    assert found is not None
    assert found["source"] == source
    expected = EXPECTED if source == "gateway" else {**EXPECTED, "admission": 0.0, "engine_queue": 0.4}
    assert list(found["stages"]) == list(STAGES)
    assert found["stages"] == pytest.approx(expected)
    assert found["overhead_seconds"] == {"n": 2, "mean": pytest.approx(0.035)}


def test_without_a_word_of_the_server_there_is_no_split() -> None:
    assert stage_split([record()], WINDOW, {"reason": "it answers 404"}) is None
    assert stage_split([record(TIMING, due=25.0)], WINDOW, {}) is None
