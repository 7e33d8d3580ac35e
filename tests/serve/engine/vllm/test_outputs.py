"""vLLM's steps as the gateway's, from small stand-ins with vLLM's field names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serve.engine.protocol import Constraint, Sampling, TokenLogprob
from serve.engine.vllm.outputs import engine_clock, engine_output, sampling_params
from serve.errors import EngineRefusedError


def part(index: int = 0, **fields: Any) -> SimpleNamespace:
    plain = {"text": "a", "token_ids": [5], "logprobs": None, "finish_reason": None, "stop_reason": None}
    return SimpleNamespace(index=index, **{**plain, **fields})


def step(*parts: SimpleNamespace, finished: bool = False, metrics: Any = None) -> SimpleNamespace:
    return SimpleNamespace(outputs=list(parts), finished=finished, metrics=metrics)


def clock(**fields: float) -> SimpleNamespace:
    return SimpleNamespace(**{"queued_ts": 10.0, "scheduled_ts": 10.5, "first_token_latency": 0.7, **fields})


def candidate(logprob: float, rank: int, text: str | None) -> SimpleNamespace:
    return SimpleNamespace(logprob=logprob, rank=rank, decoded_token=text)


def test_each_sequence_is_a_delta() -> None:
    output = engine_output(
        step(part(0), part(1, text="b", token_ids=[6, 7], finish_reason="stop", stop_reason=2))
    )
    first, second = output.deltas
    assert (first.index, first.text, list(first.token_ids), first.finish_reason) == (0, "a", [5], None)
    assert (second.index, second.text, list(second.token_ids)) == (1, "b", [6, 7])
    assert (second.finish_reason, second.stop_reason) == ("stop", 2)
    assert (output.queue_seconds, output.ttft_seconds) == (None, None)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "stop"), ("length", "length"), ("abort", "abort"), ("error", "error"), ("new", None)],
)
def test_finish_reasons_are_those_that_are_known(theirs: str, ours: str | None) -> None:
    assert engine_output(step(part(finish_reason=theirs))).deltas[0].finish_reason == ours


def test_the_clock_comes_with_the_last_step() -> None:
    output = engine_output(step(part(), finished=True, metrics=clock()))
    assert (output.queue_seconds, output.ttft_seconds) == (0.5, 0.7)
    assert engine_output(step(part(), metrics=clock())).queue_seconds is None


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (None, (None, None)),
        (clock(scheduled_ts=9.0), (0.0, 0.7)),
        (clock(queued_ts=0.0), (None, 0.7)),
        (clock(scheduled_ts=0.0, first_token_latency=0.0), (None, None)),
    ],
)
def test_a_clock_that_did_not_run_says_nothing(metrics: Any, expected: tuple[Any, Any]) -> None:
    assert engine_clock(metrics) == expected


def test_logprobs_are_of_the_chosen_token_and_of_its_rivals_in_order() -> None:
    candidates = {5: candidate(-1.5, 2, "x"), 6: candidate(-0.5, 1, None)}
    (delta,) = engine_output(step(part(logprobs=[candidates]))).deltas
    assert list(delta.logprobs) == [TokenLogprob(5, "x", -1.5, ((6, "", -0.5), (5, "x", -1.5)))]
    assert delta.logprobs[-1:] == (delta.logprobs[0],)


@pytest.fixture(scope="module")
def vllm_sampling() -> Any:
    return pytest.importorskip("vllm.sampling_params")


@pytest.mark.parametrize("streaming", [True, False])
def test_every_field_of_the_sampling_reaches_vllm(vllm_sampling: Any, streaming: bool) -> None:
    asked = Sampling(
        n=2,
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        stop=("END",),
        seed=11,
        logprobs=3,
        ignore_eos=True,
    )
    params = sampling_params(asked, stream=streaming)
    for name in (
        "n",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "logprobs",
        "ignore_eos",
    ):
        assert getattr(params, name) == getattr(asked, name), name
    for name in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
        assert getattr(params, name) == getattr(asked, name), name
    assert params.stop == ["END"]
    kind = vllm_sampling.RequestOutputKind
    assert params.output_kind == (kind.DELTA if streaming else kind.FINAL_ONLY)


@pytest.mark.parametrize(
    ("constraint", "field", "value"),
    [
        (Constraint("json_schema", '{"type":"object"}'), "json", {"type": "object"}),
        (Constraint("json_object", ""), "json_object", True),
        (Constraint("regex", "a+"), "regex", "a+"),
        (Constraint("choice", ("yes", "no")), "choice", ["yes", "no"]),
    ],
)
def test_a_constraint_becomes_vllms(
    vllm_sampling: Any, constraint: Constraint, field: str, value: Any
) -> None:
    structured = sampling_params(Sampling(constraint=constraint), stream=True).structured_outputs
    assert getattr(structured, field) == value
    assert sampling_params(Sampling(), stream=True).structured_outputs is None


def test_several_greedy_answers_to_one_prompt_are_the_clients_error() -> None:
    with pytest.raises(EngineRefusedError, match="n must be 1 when using greedy sampling, got 2"):
        sampling_params(Sampling(n=2, temperature=0.0), stream=False)
