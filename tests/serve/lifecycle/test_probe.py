"""The two probes on an engine whose logprobs are known: recorded from one script, replayed under another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.probe import Probe, ProbeCase
from adapters.target import RoundedBase
from serve.engine.protocol import AdapterHandle, EngineRequest
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import ProbeFailedError
from serve.lifecycle.effect import EFFECT_TEXTS, FIRST_TOKENS, MIN_EFFECT_NATS
from serve.lifecycle.probe import AdapterProbe
from serve.lifecycle.probe_memory import ProbeMemory
from serve.lifecycle.verdict import Cause

HANDLE = AdapterHandle("risk@3f2a91c0", 1, Path("risk"))
OTHER = AdapterHandle("risk@00000000", 2, Path("other"))
GREEDY = ((1, 2, 3), (0, 1, 2, 3, 4))  # what the scripted engine says to any prompt
FIXED = ((9, 8), (7, 7, 100, 3, 90, 11, 4))


async def recorded(
    handle: AdapterHandle = HANDLE,
    *,
    cases: Sequence[tuple[Sequence[int], Sequence[int]]] = (GREEDY, FIXED),
    tolerance: float = 0.02,
) -> Probe:
    """The probe that a trainer writes who has the scripted engine's base and adapter."""
    engine = ScriptedEngine()
    return Probe(
        base_fingerprint="f",
        dtype="float32",
        tolerance=tolerance,
        cases=[
            ProbeCase(
                prompt_token_ids=list(prompt),
                expected_token_ids=list(tokens),
                adapter_logprobs=await engine.score(prompt, tokens, handle),
                base_logprobs=await engine.score(prompt, tokens, None),
            )
            for prompt, tokens in cases
        ],
    )


async def refused(script: Script, probe: Probe, handle: AdapterHandle = HANDLE) -> ProbeFailedError:
    with pytest.raises(ProbeFailedError) as caught:
        await AdapterProbe(ScriptedEngine(script)).replay(handle, probe)
    return caught.value


async def test_an_adapter_that_changes_nothing_is_refused_with_the_numbers() -> None:
    with pytest.raises(ProbeFailedError, match="changes nothing") as caught:
        await AdapterProbe(ScriptedEngine(Script(no_effect=True))).effect(HANDLE)
    assert caught.value.cause == Cause.NO_EFFECT
    assert caught.value.numbers is not None
    assert (caught.value.numbers["kind"], caught.value.numbers["max_difference_nats"]) == ("effect", 0.0)


async def test_an_adapter_that_changes_something_passes_with_the_size_of_the_change() -> None:
    engine = ScriptedEngine()
    result = await AdapterProbe(engine).effect(HANDLE)
    texts = [engine.codec.encode(text, parse_special=False) for text in EFFECT_TEXTS]
    assert (result.kind, result.num_cases) == ("effect", len(EFFECT_TEXTS))
    assert result.num_tokens == sum(len(text) - 1 for text in texts)
    assert result.max_difference_nats > 1.0
    assert result.limit == MIN_EFFECT_NATS


async def test_an_effect_within_the_rounding_between_two_askings_is_none() -> None:
    class Rounding(ScriptedEngine):
        """Each asking of the base is off by a little more; the adapter does nothing."""

        async def score(self, prompt: Any, continuation: Any, adapter: Any) -> list[float]:
            values = await super().score(prompt, continuation, adapter)
            rounding = 1e-4 * len(self.scored) / len(EFFECT_TEXTS)
            return [value - rounding for value in values]

    with pytest.raises(ProbeFailedError, match="changes nothing"):
        await AdapterProbe(Rounding(Script(no_effect=True))).effect(HANDLE)
    await AdapterProbe(Rounding()).effect(HANDLE)


async def test_what_the_base_said_is_remembered_and_a_few_tokens_are_enough_for_a_sure_effect() -> None:
    engine = ScriptedEngine()
    probe = AdapterProbe(engine)
    await probe.effect(HANDLE)
    asked = len(engine.scored)
    result = await probe.effect(OTHER)
    assert engine.scored[asked:] == [OTHER]
    assert (result.num_cases, result.num_tokens) == (1, FIRST_TOKENS - 1)
    assert result.base_difference_nats == 0.0
    assert result.max_difference_nats > 1.0


async def test_texts_are_asked_one_after_another_until_the_effect_is_sure() -> None:
    class Late(ScriptedEngine):
        """The adapter changes only what comes late: in the second text, not in the first."""

        async def score(self, prompt: Any, continuation: Any, adapter: Any) -> list[float]:
            late = len(continuation) > len(EFFECT_TEXTS[0])
            return await super().score(prompt, continuation, adapter if late else None)

    engine = Late()
    probe = AdapterProbe(engine)
    await probe.effect(HANDLE)
    asked = len(engine.scored)
    result = await probe.effect(OTHER)
    assert len(engine.scored) - asked == 3, "the beginning of the first, the first, the second"
    assert result.num_cases == 2


async def test_an_unsure_effect_is_asked_of_base_and_adapter_anew() -> None:
    engine = ScriptedEngine()
    probe = AdapterProbe(engine)
    await probe.effect(HANDLE)
    engine.script.strength = 0.001
    asked = len(engine.scored)
    result = await probe.effect(OTHER)
    assert result.num_cases == len(EFFECT_TEXTS)
    assert engine.scored[asked:].count(None) == 2 * len(EFFECT_TEXTS)
    engine.script.no_effect = True
    with pytest.raises(ProbeFailedError, match="changes nothing"):
        await probe.effect(OTHER)


async def test_what_is_sure_is_beyond_five_times_the_rounding_that_was_seen() -> None:
    class Rounding(ScriptedEngine):
        """Each asking of the base is off by up to 0.5 more."""

        async def score(self, prompt: Any, continuation: Any, adapter: Any) -> list[float]:
            values = await super().score(prompt, continuation, adapter)
            rounding = 0.5 * self.scored.count(None) / len(EFFECT_TEXTS) if adapter is None else 0.0
            return [value - rounding for value in values]

    engine = Rounding()
    probe = AdapterProbe(engine)
    await probe.effect(HANDLE)
    asked = len(engine.scored)
    await probe.effect(OTHER)
    assert engine.scored[asked:].count(None) == 2 * len(EFFECT_TEXTS)


async def test_an_adapter_that_passed_is_asked_one_case_when_it_comes_back() -> None:
    engine = ScriptedEngine()
    probe, case = AdapterProbe(engine), await recorded()
    whole = await probe.replay(HANDLE, case, digest="a")
    asked, answered = len(engine.scored), len(engine.requests)
    again = await probe.replay(HANDLE, case, digest="a")
    assert (engine.scored[asked:], len(engine.requests)) == ([HANDLE], answered)
    assert (whole.num_cases, again.num_cases) == (2, 1)
    assert again.difference == pytest.approx(0.0)


@pytest.mark.parametrize("digest", ["another", None])
async def test_another_content_is_asked_everything_but_the_base(digest: str | None) -> None:
    engine = ScriptedEngine()
    probe, case = AdapterProbe(engine), await recorded()
    await probe.replay(HANDLE, case, digest="a")
    asked = len(engine.scored)
    assert (await probe.replay(HANDLE, case, digest=digest)).num_cases == 2
    assert None not in engine.scored[asked:]


async def test_another_probe_of_the_same_content_is_asked_whole() -> None:
    probe = AdapterProbe(ScriptedEngine())
    await probe.replay(HANDLE, await recorded(), digest="a")
    assert (await probe.replay(HANDLE, await recorded(tolerance=0.03), digest="a")).num_cases == 2


async def test_a_known_adapter_whose_training_moved_little_is_asked_everything_again() -> None:
    probe = AdapterProbe(ScriptedEngine())
    case = await recorded(tolerance=5.0)  # one case is no proof within such a limit
    for _ in range(2):
        assert (await probe.replay(HANDLE, case, digest="a")).num_cases == 2


@pytest.mark.parametrize(
    "spoilt", [Script(no_effect=True), Script(strength=0.5), Script(base_shift=1.0)], ids=str
)
async def test_a_known_adapter_that_answers_otherwise_is_refused_by_all_its_cases(spoilt: Script) -> None:
    engine = ScriptedEngine()
    probe, case = AdapterProbe(engine), await recorded()
    await probe.replay(HANDLE, case, digest="a")
    engine.script = spoilt
    with pytest.raises(ProbeFailedError) as caught:
        await probe.replay(HANDLE, case, digest="a")
    assert caught.value.numbers is not None
    assert caught.value.numbers["num_cases"] == 2


async def test_what_was_learned_of_one_engine_is_not_believed_of_another() -> None:
    memory, case = ProbeMemory(), await recorded()
    engine = ScriptedEngine()
    await AdapterProbe(engine, memory=memory).replay(HANDLE, case, digest="a")
    await AdapterProbe(engine, memory=memory).replay(HANDLE, case, digest="a")
    assert engine.scored.count(None) == 2
    fresh = ScriptedEngine()
    assert (await AdapterProbe(fresh).replay(HANDLE, case, digest="a")).num_cases == 2
    assert fresh.scored.count(None) == 2


async def test_a_replay_as_recorded_passes() -> None:
    result = await AdapterProbe(ScriptedEngine()).replay(HANDLE, await recorded())
    assert (result.kind, result.num_cases, result.num_tokens) == ("replay", 2, 12)
    assert result.max_difference_nats == 0.0
    assert result.slope == pytest.approx(1.0)
    assert result.fit == pytest.approx(1.0)
    assert "slope 1.000" in result.describe()


async def test_what_is_answered_as_expected_is_read_from_the_answer_and_the_rest_is_scored() -> None:
    engine = ScriptedEngine()
    await AdapterProbe(engine).replay(HANDLE, await recorded())
    asked = engine.requests[0]
    assert (asked.adapter, asked.sampling.temperature, asked.stream) == (HANDLE, 0.0, False)
    assert asked.sampling.ignore_eos
    assert asked.urgent
    # The base for both cases, the adapter for the one whose tokens it would not have said by itself.
    assert sorted(engine.scored, key=str) == sorted([None, None, HANDLE], key=str)


async def test_an_adapter_that_the_engine_does_not_apply_is_refused_for_that() -> None:
    error = await refused(Script(no_effect=True), await recorded())
    assert error.cause == Cause.NO_EFFECT
    assert "in training it moved them by" in str(error)


@pytest.mark.parametrize("strength", [0.5, 0.25, 2.0])
async def test_another_strength_is_named_with_its_number(strength: float) -> None:
    error = await refused(Script(strength=strength), await recorded())
    assert error.cause == Cause.WRONG_SCALE
    assert f"acts at {strength:.2f} of its trained strength" in str(error)
    assert error.numbers is not None
    assert error.numbers["slope"] == pytest.approx(strength, abs=1e-6)


@pytest.mark.parametrize(("dtype", "rounding"), [("bfloat16", 0.29), ("float16", 0.19)])
async def test_half_the_strength_is_refused_in_an_engine_that_rounds(dtype: str, rounding: float) -> None:
    engine = ScriptedEngine(Script(strength=0.5, base_shift=rounding))
    engine.facts = replace(engine.facts, dtype=dtype)
    with pytest.raises(ProbeFailedError, match=r"trained strength|unlike"):
        await AdapterProbe(engine).replay(HANDLE, await recorded())


async def test_another_adapter_s_probe_is_refused_with_the_worst_token() -> None:
    error = await refused(Script(), await recorded(OTHER))
    assert error.cause == Cause.OTHER
    assert "nats at case" in str(error)


async def test_another_base_is_named_before_the_adapter() -> None:
    error = await refused(Script(base_shift=1.0, strength=0.5), await recorded())
    assert error.cause == Cause.BASE_DIFFERS
    assert "not the base of the training" in str(error)


async def test_rounding_of_the_base_widens_what_the_adapter_may_be_off_by() -> None:
    engine = ScriptedEngine(Script(base_shift=0.04))
    result = await AdapterProbe(engine).replay(HANDLE, await recorded())
    assert result.limit == pytest.approx(0.08)
    assert result.difference == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("script", "rounding", "cause"),
    [
        (Script(base_shift=0.2), 0.2, None),
        (Script(base_shift=0.2, strength=0.5), 0.2, Cause.OTHER),
        (Script(base_shift=0.2, strength=2.0), 0.2, Cause.OTHER),
        (Script(base_shift=0.2, no_effect=True), 0.2, Cause.NO_EFFECT),
        (Script(base_shift=0.9), 0.2, Cause.BASE_DIFFERS),
        (Script(base_shift=0.9), 0.9, Cause.BASE_ROUNDED),
    ],
)
async def test_a_probe_of_the_original_is_judged_with_the_rounding_of_the_quantised_base(
    script: Script, rounding: float, cause: Cause | None
) -> None:
    engine = ScriptedEngine(script)
    engine.facts = replace(engine.facts, quantisation="compressed-tensors")
    probe = AdapterProbe(engine, rounded=RoundedBase({"f": "the original"}, "int8-w8a8", rounding))
    if cause is None:
        assert (await probe.replay(HANDLE, await recorded())).kind == "replay"
        return
    with pytest.raises(ProbeFailedError) as caught:
        await probe.replay(HANDLE, await recorded())
    assert caught.value.cause == cause


async def test_a_probe_of_the_quantised_base_itself_is_judged_strictly() -> None:
    engine = ScriptedEngine(Script(base_shift=0.9))
    engine.facts = replace(engine.facts, quantisation="compressed-tensors")
    probe = AdapterProbe(engine, rounded=RoundedBase({"another": "the original"}, "int8-w8a8", 0.9))
    with pytest.raises(ProbeFailedError) as caught:
        await probe.replay(HANDLE, await recorded())
    assert caught.value.cause == Cause.BASE_DIFFERS


async def test_tokens_outside_the_vocabulary_are_another_tokenizer_s() -> None:
    probe = (await recorded()).model_copy(deep=True)
    probe.cases[1].expected_token_ids[0] = 256
    error = await refused(Script(), probe)
    assert error.cause == Cause.BASE_DIFFERS
    assert "token 256 in case 1" in str(error)


async def test_cases_beyond_the_served_context_are_left_out() -> None:
    long = (tuple(range(100)), (0, 1))
    probe = await recorded(cases=(GREEDY, long))
    result = await AdapterProbe(ScriptedEngine(context_tokens=50)).replay(HANDLE, probe)
    assert result.num_cases == 1
    with pytest.raises(ProbeFailedError, match="fits the served context of 50"):
        await AdapterProbe(ScriptedEngine(context_tokens=50)).replay(HANDLE, await recorded(cases=(long,)))


async def test_two_adapters_are_probed_at_the_same_time() -> None:
    probe = AdapterProbe(ScriptedEngine())
    results = await asyncio.gather(
        probe.replay(HANDLE, await recorded()), probe.replay(OTHER, await recorded(OTHER))
    )
    assert [result.max_difference_nats for result in results] == [0.0, 0.0]


async def test_an_engine_s_failure_in_one_case_ends_the_probe_with_that_failure() -> None:
    class Failing(ScriptedEngine):
        def generate(self, request: EngineRequest) -> Any:
            raise ProbeFailedError("broken")

    with pytest.raises(ProbeFailedError, match="broken"):
        await AdapterProbe(Failing()).replay(HANDLE, await recorded())
