"""The verdict on numbers: which cause is named, and that rounding hides no wrong strength."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adapters.probe import ProbeCase
from adapters.target import RoundedBase
from serve.engine.protocol import EngineFacts
from serve.errors import ProbeFailedError
from serve.lifecycle.verdict import (
    EFFECT_OVER_LIMIT,
    LINEAGE_FACTOR,
    MAX_BASE_ROUNDING,
    MAX_LOG_ODDS,
    MAX_QUANTISED_ROUNDING,
    REPROVE,
    Cause,
    Measurement,
    ProbeRefusedError,
    ProbeResult,
    distance,
    judge,
    log_odds,
)

TOLERANCE = 0.02
odds = st.floats(-8, 6)
effects = st.lists(st.tuples(odds, st.floats(-3, 3)), min_size=8, max_size=40)


def facts(dtype: str = "float32", quantisation: str | None = None) -> EngineFacts:
    return EngineFacts("base", 4096, 1000, 64, 8, 64, 64, False, dtype, quantisation)


def logprob(value: float) -> float:
    """The logarithm of the probability with those log-odds."""
    return -math.log1p(math.exp(-value))


def measure(
    tokens: Sequence[tuple[float, float]],
    *,
    strength: float = 1.0,
    base: Sequence[float] | float = 0.0,
    adapter: Sequence[float] | float = 0.0,
) -> list[Measurement]:
    """Tokens of (base log-odds, the adapter's effect) in an engine that is off by `base` and `adapter`."""
    off_base = [base] * len(tokens) if isinstance(base, float) else list(base)
    off_adapter = [adapter] * len(tokens) if isinstance(adapter, float) else list(adapter)
    case = ProbeCase(
        prompt_token_ids=[1],
        expected_token_ids=list(range(len(tokens))),
        adapter_logprobs=[logprob(start + effect) for start, effect in tokens],
        base_logprobs=[logprob(start) for start, _ in tokens],
    )
    here_base = tuple(logprob(start + off) for (start, _), off in zip(tokens, off_base, strict=True))
    here = tuple(
        logprob(start + strength * effect + off)
        for (start, effect), off in zip(tokens, off_adapter, strict=True)
    )
    return [Measurement(case, here_base, here)]


def cause_of(
    measured: list[Measurement], given: EngineFacts, rounded: RoundedBase | None = None
) -> Cause | None:
    try:
        judge("risk@3f2a91c0", measured, tolerance=TOLERANCE, facts=given, rounded=rounded)
    except ProbeRefusedError as error:
        return Cause(error.cause)
    return None


@settings(deadline=None)
@given(st.floats(-30, 30))
def test_log_odds_turn_a_logprob_back_up_to_a_thousand_to_one(value: float) -> None:
    assert log_odds(logprob(value)) == pytest.approx(min(value, MAX_LOG_ODDS), abs=1e-6)


def test_log_odds_of_certainty_and_of_rounding_above_it_are_the_largest() -> None:
    assert log_odds(0.0) == log_odds(1e-3) == MAX_LOG_ODDS


@settings(deadline=None)
@given(effects)
def test_the_same_numbers_pass(tokens: list[tuple[float, float]]) -> None:
    result = judge("a", measure(tokens), tolerance=TOLERANCE, facts=facts())
    assert isinstance(result, ProbeResult)
    assert result.max_difference_nats < 1e-6


@settings(deadline=None)
@given(effects, st.sampled_from([0.25, 0.5, 2.0, 4.0]), st.sampled_from(sorted(MAX_BASE_ROUNDING)))
def test_a_wrong_strength_never_passes_however_the_engine_rounds(
    tokens: list[tuple[float, float]], strength: float, dtype: str
) -> None:
    """Where the adapter's effect is larger than what rounding may hide."""
    rounding = MAX_BASE_ROUNDING[dtype] * 0.99
    effect = math.sqrt(sum(change * change for _, change in tokens) / len(tokens))
    unsure = all(start + abs(change) * max(1.0, strength) < MAX_LOG_ODDS for start, change in tokens)
    assume(unsure and effect * min(abs(strength - 1), 1.0) > 2.2 * rounding + TOLERANCE)
    measured = measure(tokens, strength=strength, base=rounding)
    assert cause_of(measured, facts(dtype)) in (Cause.WRONG_SCALE, Cause.OTHER)


@settings(deadline=None)
@given(effects, st.floats(-1, 1))
def test_an_adapter_that_rounds_as_the_base_does_passes(
    tokens: list[tuple[float, float]], share: float
) -> None:
    rounding = 0.25
    measured = measure(tokens, base=rounding, adapter=1.9 * rounding * share)
    assert cause_of(measured, facts("bfloat16")) is None


TOKENS = [(-4.0, 3.0), (-1.0, 2.0), (0.5, -1.5), (2.0, 0.5), (-6.0, 2.5), (-2.0, -1.0)]


def test_each_cause_has_its_numbers() -> None:
    assert cause_of(measure(TOKENS), facts()) is None
    assert cause_of(measure(TOKENS, strength=0.0), facts()) is Cause.NO_EFFECT
    assert cause_of(measure(TOKENS, strength=0.5), facts()) is Cause.WRONG_SCALE
    assert cause_of(measure(TOKENS, adapter=[-2, 2, 2, -2, 2, -2]), facts()) is Cause.OTHER
    assert cause_of(measure(TOKENS, base=1.0), facts()) is Cause.BASE_DIFFERS


def test_what_the_base_may_be_off_by_depends_on_what_the_engine_computes_in() -> None:
    measured = measure(TOKENS, base=0.25, adapter=0.25)
    assert cause_of(measured, facts("float32")) is Cause.BASE_DIFFERS
    assert cause_of(measured, facts("float16")) is Cause.BASE_DIFFERS
    assert cause_of(measured, facts("bfloat16")) is None
    quantised = measure(TOKENS, base=MAX_QUANTISED_ROUNDING * 0.99, adapter=0.5)
    assert cause_of(quantised, facts("bfloat16")) is Cause.BASE_DIFFERS
    assert cause_of(quantised, facts("bfloat16", "compressed-tensors")) is None
    halved = measure(TOKENS, strength=0.0, base=0.5)
    assert cause_of(halved, facts("bfloat16", "compressed-tensors")) is not None


def test_an_adapter_whose_training_had_no_effect_is_not_refused_for_having_none() -> None:
    flat = [(start, 0.001) for start, _ in TOKENS]
    assert cause_of(measure(flat, strength=0.0), facts()) is None


def test_the_worst_token_is_named_by_case_and_place() -> None:
    first, second = measure(TOKENS), measure(TOKENS, adapter=[0, 0, 0, -3, 0, 0])
    with pytest.raises(ProbeRefusedError, match="at case 1, token 3"):
        judge("a", [*first, *second], tolerance=TOLERANCE, facts=facts())


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_answers_that_are_no_numbers_are_refused(value: float) -> None:
    good = measure(TOKENS)[0]
    bad = Measurement(good.case, good.base_logprobs, (value, *good.adapter_logprobs[1:]))
    assert cause_of([bad], facts()) is Cause.OTHER


def test_the_error_carries_the_numbers() -> None:
    with pytest.raises(ProbeFailedError) as caught:
        judge("a", measure(TOKENS, strength=0.5), tolerance=TOLERANCE, facts=facts())
    numbers = caught.value.numbers
    assert numbers is not None
    assert numbers["cause"] == "wrong_scale"
    assert numbers["slope"] == pytest.approx(0.5)
    assert numbers["num_tokens"] == len(TOKENS)


def test_distance_is_that_of_the_adapter_alone() -> None:
    assert distance(measure(TOKENS, base=1.0, adapter=0.25)) == pytest.approx(0.25)


QUANTISED = facts("float32", "compressed-tensors")
STRONG = [(start, 4 * effect) for start, effect in TOKENS]  # moves log-odds by 7.6, root mean square


def original(rounding: float | None) -> RoundedBase:
    return RoundedBase({"f": "the original"}, "gptq-w4a16", rounding)


def test_a_probe_of_the_original_allows_the_base_what_quantising_was_measured_to_move_it() -> None:
    within = measure(STRONG, base=1.4, adapter=1.4)
    assert cause_of(within, QUANTISED) is Cause.BASE_DIFFERS
    assert cause_of(within, QUANTISED, original(1.4 / LINEAGE_FACTOR + 0.01)) is None
    assert cause_of(within, QUANTISED, original(1.4 / LINEAGE_FACTOR - 0.01)) is Cause.BASE_DIFFERS


def test_an_adapter_may_be_off_by_as_much_though_the_base_here_is_hardly_off() -> None:
    """GPTQ keeps what the base says, and not what an adapter makes of it."""
    assert cause_of(measure(STRONG, base=0.5, adapter=-1.5), QUANTISED, original(1.0)) is None
    assert cause_of(measure(STRONG, base=0.5, adapter=-2.5), QUANTISED, original(1.0)) is Cause.OTHER


@pytest.mark.parametrize("strength", [0.25, 0.5, 2.0, 4.0])
def test_a_wrong_strength_does_not_hide_in_the_rounding_of_the_base(strength: float) -> None:
    unsure = [(start - 6, effect / 2) for start, effect in STRONG]
    measured = measure(unsure, strength=strength, base=0.4, adapter=0.4)
    assert cause_of(measured, QUANTISED, original(0.4)) is Cause.OTHER


def test_no_effect_and_another_adapter_are_told_on_a_rounded_base_too() -> None:
    silent = measure(STRONG, strength=0.0, base=1.4, adapter=1.4)
    assert cause_of(silent, QUANTISED, original(1.0)) is Cause.NO_EFFECT
    other = measure(STRONG, base=1.4, adapter=[-12, 8, -6, 3, 9, -7])
    assert cause_of(other, QUANTISED, original(1.0)) is Cause.OTHER


@settings(deadline=None)
@given(st.floats(0.01, 2.0))
def test_where_rounding_could_hide_half_the_effect_the_adapter_has_to_be_proven_anew(rounding: float) -> None:
    cause = cause_of(measure(TOKENS, base=rounding, adapter=rounding), QUANTISED, original(rounding))
    limit = max(MAX_QUANTISED_ROUNDING / 2, LINEAGE_FACTOR * rounding)
    effect = 1.86  # root mean square of TOKENS
    if EFFECT_OVER_LIMIT * limit > effect + 0.1:
        assert cause is Cause.BASE_ROUNDED
    elif EFFECT_OVER_LIMIT * limit < effect - 0.1:
        assert cause is None


def test_where_nobody_measured_what_quantising_moved_the_adapter_has_to_be_proven_anew() -> None:
    assert cause_of(measure(STRONG), QUANTISED, original(None)) is Cause.BASE_ROUNDED


@pytest.mark.parametrize("base", [1.0, 3.0])
def test_the_refusal_says_how_to_prove_it_anew(base: float) -> None:
    with pytest.raises(ProbeRefusedError, match=REPROVE):
        judge(
            "a",
            measure(TOKENS, base=base, adapter=base),
            tolerance=TOLERANCE,
            facts=QUANTISED,
            rounded=original(1.0),
        )
