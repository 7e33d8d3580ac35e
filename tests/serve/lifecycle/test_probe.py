"""The two probes against an engine whose logprobs the test writes down."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from adapters.probe import Probe, ProbeCase
from serve.engine.protocol import AdapterHandle, Delta, EngineOutput, EngineRequest, TokenLogprob
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import ProbeFailedError
from serve.lifecycle.probe import EFFECT_PROMPTS, MIN_EFFECT_NATS, AdapterProbe

HANDLE = AdapterHandle("risk@3f2a91c0", 1, Path("risk"))


class WrittenEngine:
    """Answers with the logprobs that the test wrote down."""

    def __init__(self, base: list[TokenLogprob], adapter: list[TokenLogprob]) -> None:
        self.codec = ScriptedEngine().codec
        self.base, self.adapter = base, adapter
        self.requests: list[EngineRequest] = []

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        self.requests.append(request)
        tokens = self.base if request.adapter is None else self.adapter
        yield EngineOutput([Delta(0, "x", logprobs=tokens[: request.sampling.max_tokens])])


def token(token_id: int, logprob: float, **rivals: float) -> TokenLogprob:
    top = ((token_id, "", logprob), *((int(name[1:]), "", value) for name, value in rivals.items()))
    return TokenLogprob(token_id, "", logprob, top)


def make(base: list[TokenLogprob], adapter: list[TokenLogprob]) -> tuple[AdapterProbe, WrittenEngine]:
    engine = WrittenEngine(base, adapter)
    stand_in: Any = engine
    return AdapterProbe(stand_in), engine


def recorded(tokens: list[int], logprobs: list[float], *, tolerance: float = 0.05, cases: int = 1) -> Probe:
    case = ProbeCase(
        prompt_token_ids=[1, 2],
        expected_token_ids=tokens,
        adapter_logprobs=logprobs,
        base_logprobs=[-9.0] * len(tokens),
    )
    return Probe(base_fingerprint="f", dtype="float32", tolerance=tolerance, cases=[case] * cases)


async def test_an_adapter_that_changes_nothing_is_refused() -> None:
    probe = AdapterProbe(ScriptedEngine(Script(no_effect=True)))
    with pytest.raises(ProbeFailedError, match="changes nothing"):
        await probe.effect(HANDLE)


async def test_an_adapter_that_changes_something_passes_with_the_size_of_the_change() -> None:
    probe, engine = make([token(5, -0.5, t6=-1.0)], [token(5, -0.5, t6=-1.25)])
    result = await probe.effect(HANDLE)
    assert (result.kind, result.num_tokens) == ("effect", len(EFFECT_PROMPTS))
    assert result.max_difference_nats == pytest.approx(0.25)
    asked = engine.requests[-1]
    assert (asked.adapter, asked.sampling.temperature, asked.stream) == (HANDLE, 0.0, False)


async def test_the_base_is_asked_once_for_all_adapters() -> None:
    probe, engine = make([token(5, -0.5)], [token(5, -0.6)])
    await probe.effect(HANDLE)
    await probe.effect(HANDLE)
    assert sum(request.adapter is None for request in engine.requests) == len(EFFECT_PROMPTS)


async def test_other_likeliest_tokens_are_an_effect() -> None:
    probe, _ = make([token(5, -0.5)], [token(6, -0.5)])
    assert (await probe.effect(HANDLE)).max_difference_nats == float("inf")


async def test_a_difference_of_rounding_is_no_effect() -> None:
    probe, _ = make([token(5, -0.5)], [token(5, -0.5 + MIN_EFFECT_NATS / 2)])
    with pytest.raises(ProbeFailedError):
        await probe.effect(HANDLE)


async def test_an_engine_that_gives_no_token_fails_the_probe() -> None:
    probe, _ = make([token(5, -0.5)], [])
    with pytest.raises(ProbeFailedError, match="0 of 1 tokens"):
        await probe.effect(HANDLE)


async def test_a_replay_as_recorded_passes() -> None:
    probe, engine = make([], [token(5, -0.5), token(6, -0.75)])
    result = await probe.replay(HANDLE, recorded([5, 6], [-0.5, -0.72], cases=2))
    assert (result.kind, result.num_tokens) == ("replay", 4)
    assert result.max_difference_nats == pytest.approx(0.03)
    assert list(engine.requests[0].prompt_token_ids) == [1, 2]


async def test_a_replay_beyond_the_tolerance_is_refused_with_the_numbers() -> None:
    probe, _ = make([], [token(5, -0.5), token(6, -0.75)])
    with pytest.raises(ProbeFailedError, match=r"token 1: logprob -0\.7500, recorded -0\.6900 \(base -9"):
        await probe.replay(HANDLE, recorded([5, 6], [-0.5, -0.69]))


async def test_a_token_that_is_not_among_the_likeliest_is_refused() -> None:
    probe, _ = make([], [token(7, -0.1, t8=-3.0)])
    with pytest.raises(ProbeFailedError, match="not among the likeliest"):
        await probe.replay(HANDLE, recorded([5], [-0.5]))


async def test_after_a_tie_the_rest_of_a_case_is_not_compared() -> None:
    probe, _ = make([], [token(6, -0.5, t5=-0.5), token(9, -4.0)])
    result = await probe.replay(HANDLE, recorded([5, 6], [-0.5, -0.1]))
    assert result.num_tokens == 1
