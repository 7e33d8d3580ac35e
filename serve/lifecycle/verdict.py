"""Decides from numbers whether the adapter in the engine is the one that was trained, and names the cause if not.

For each recorded token there are four log probabilities: of the adapter and of the base, recorded and in this
engine. They are compared as log-odds, log(p / (1 - p)): those move in step with the adapter's strength and
carry the same rounding everywhere, while log probabilities stand still where an answer is sure. Odds beyond
1000 to 1 count as 1000 to 1: of what lies there a float32 softmax leaves little but rounding.

The yardstick is the base. Its weights are known to be the same (the fingerprint says so), so what it is off by
is this engine's rounding: of bfloat16, of a quantised base, of other kernels. The adapter may be off by twice as
much, by half of what the base may be off by at most, or by the file's tolerance, whichever is most. Measured with
the default base, recorded in float32 and answered by vLLM in bfloat16, in root mean square log-odds: the base is
off by 0.11, the adapter by 0.08; an adapter of which two layers were exchanged by 0.27, at 0.8 of its strength by
0.50, at half of it by 1.8.

A quantised base may serve an adapter whose probe was recorded on the base that it was quantised from. Then the
base here is no yardstick: GPTQ keeps what the base says and not what an adapter makes of it, and moved a right
adapter by three times as much. The yardstick is what quantising was measured to move of what the original itself
would say, which the lineage beside the weights records; by 1.75 times that base and adapter may be off. Where it
is not small against the adapter's effect, half the effect would pass for rounding: nothing is told from the
numbers then, and the adapter has to be proven on the quantised base first. Measured: docs/architecture.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal

from adapters.probe import ProbeCase
from adapters.target import RoundedBase
from serve.engine.protocol import EngineFacts
from serve.errors import ProbeFailedError

MAX_LOG_ODDS = math.log(1000)
LEAST_LOGPROB = -1e4
# The adapter may be off by so many times what the base is off by. Measured: 0.7 to 1.3 times.
ROUNDING_FACTOR = 2.0
# What the base may be off by, in root mean square log-odds, beyond the file's tolerance. Measured: see
# docs/architecture.md. Another base of the same shape is off by 1 and more.
MAX_BASE_ROUNDING: dict[str, float] = {"float32": 0.05, "float16": 0.2, "bfloat16": 0.3}
MAX_QUANTISED_ROUNDING = 0.6
# An adapter from the original, and the base, may be off by so many times what quantising was measured to move.
# Measured: 0.2 to 1.4 times; half the strength 1.8 times and more.
LINEAGE_FACTOR = 1.75
# The effect of an adapter from the original must be so many times what it may be off by: half the strength takes a
# sixth of the effect from a sure adapter, a third from an unsure one.
EFFECT_OVER_LIMIT = 4.0
# Below this share of the recorded effect there is none.
NO_EFFECT_SHARE = 0.1
REPROVE = "prove it on this base first: hotswap adapters export FOLDER --base QUANTISED --out NEW"
# The strength is called another one when it is off by this share and explains the numbers this well.
MIN_SCALE_ERROR = 0.1
MIN_SCALE_FIT = 0.95


class Cause(StrEnum):
    """Why a probe was refused."""

    BASE_DIFFERS = "base_differs"
    BASE_ROUNDED = "base_rounded"
    NO_EFFECT = "no_effect"
    WRONG_SCALE = "wrong_scale"
    OTHER = "unlike_training"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One recorded case and what this engine makes of its tokens."""

    case: ProbeCase
    base_logprobs: tuple[float, ...]
    adapter_logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe measured.

    Replay: differences are those from the recorded values; the limit and `base_rounding` are root mean squares
    of log-odds. Effect: differences are those from the base, the limit is the least that counts.
    """

    kind: Literal["replay", "effect"]
    num_cases: int
    num_tokens: int
    max_difference_nats: float
    mean_difference_nats: float
    base_difference_nats: float  # largest; effect: between two askings of the base
    limit: float
    difference: float | None = None  # replay: root mean square of log-odds, to be held against `limit`
    slope: float | None = None  # replay: the effect here over the effect in training
    fit: float | None = None  # replay: how well the slope explains it, 1 is entirely
    seconds: float = 0.0

    def describe(self) -> str:
        """One line for the log."""
        said = (
            f"{self.kind}, {self.num_cases} cases, {self.num_tokens} tokens in {self.seconds:g} s: largest "
            f"difference {self.max_difference_nats:.3g} nats, base {self.base_difference_nats:.3g} nats"
        )
        if self.difference is not None:
            said += f", log-odds off by {self.difference:.3g} of at most {self.limit:.3g}"
        return f"{said}, slope {self.slope:.3f}" if self.slope is not None else said


class ProbeRefusedError(ProbeFailedError):
    """The numbers say no; `result` has them."""

    def __init__(self, cause: Cause, message: str, result: ProbeResult) -> None:
        super().__init__(message, cause=cause, numbers={"cause": str(cause), **asdict(result)})
        self.result = result


def distance(measured: Sequence[Measurement]) -> float:
    """How far the adapter's log-odds are from the training's, root mean square."""
    return _Numbers(measured).adapter_off


def recorded_effect(case: ProbeCase) -> float:
    """How far the adapter moved the log-odds of a case in training, root mean square."""
    pairs = zip(case.adapter_logprobs, case.base_logprobs, strict=True)
    return _rms([log_odds(one) - log_odds(other) for one, other in pairs])


def log_odds(logprob: float) -> float:
    """log(p / (1 - p)), within plus and minus MAX_LOG_ODDS above, open below."""
    if logprob >= -1e-9:
        return MAX_LOG_ODDS
    return min(MAX_LOG_ODDS, logprob - math.log(-math.expm1(logprob)))


def judge(
    name: str,
    measured: Sequence[Measurement],
    *,
    tolerance: float,
    facts: EngineFacts,
    seconds: float = 0.0,
    rounded: RoundedBase | None = None,
) -> ProbeResult:
    """The numbers of an adapter that answers as in training. Raises ProbeFailedError with the cause otherwise.

    `tolerance` is the file's, in nats; `seconds` is what measuring took. `rounded` is given where the probe was
    recorded on the base that the served one was quantised from.
    """
    numbers = _Numbers(measured)
    allowed = MAX_QUANTISED_ROUNDING if facts.quantisation else MAX_BASE_ROUNDING.get(facts.dtype, 0.3)
    limit = max(tolerance, allowed / 2, ROUNDING_FACTOR * numbers.base_off)
    if rounded is not None:
        lost = LINEAGE_FACTOR * (rounded.rounding or 0.0)
        limit, allowed = max(tolerance, allowed / 2, lost), max(allowed, lost)
    result = ProbeResult(
        kind="replay",
        num_cases=len(measured),
        num_tokens=len(numbers.nats_off),
        max_difference_nats=max(numbers.nats_off),
        mean_difference_nats=math.fsum(numbers.nats_off) / len(numbers.nats_off),
        base_difference_nats=max(numbers.base_nats_off),
        limit=limit,
        difference=numbers.adapter_off,
        slope=numbers.slope,
        fit=numbers.fit,
        seconds=seconds,
    )
    if numbers.base_off > max(tolerance, allowed):
        scheme = f", quantised ({facts.quantisation})" if facts.quantisation else ""
        raise ProbeRefusedError(
            Cause.BASE_DIFFERS,
            f"the base that serves is not the base of the training, or its precision ({facts.dtype}{scheme}) "
            f"loses too much: without adapter {name} its log probabilities are off by up to "
            f"{result.base_difference_nats:.3g} nats ({numbers.base_off:.3g} in log-odds, at most "
            f"{max(tolerance, allowed):.3g} is rounding); serve the base it was trained on"
            + (f", or {REPROVE}" if rounded is not None else ""),
            result,
        )
    if numbers.recorded_effect > result.limit and numbers.effect < NO_EFFECT_SHARE * numbers.recorded_effect:
        raise ProbeRefusedError(
            Cause.NO_EFFECT,
            f"adapter {name} changes nothing here: its answers are within {numbers.effect:.3g} of the base's "
            f"(log-odds), in training it moved them by {numbers.recorded_effect:.3g}; the engine did not "
            "apply it, or its weights are not those that were trained",
            result,
        )
    if rounded is not None:
        _expect_judgeable(name, rounded, numbers, result)
    if numbers.adapter_off <= limit:
        return result
    # Rounding of the base takes from the slope itself, so that it names no strength there.
    has_slope = numbers.slope is not None and rounded is None
    off_scale = has_slope and abs((numbers.slope or 0.0) - 1) > MIN_SCALE_ERROR
    if off_scale and numbers.fit is not None and numbers.fit >= MIN_SCALE_FIT:
        raise ProbeRefusedError(Cause.WRONG_SCALE, scale_message(name, numbers.slope or 0.0, result), result)
    case, token, difference = numbers.worst
    raise ProbeRefusedError(
        Cause.OTHER,
        f"adapter {name} answers unlike the training: largest difference {difference:.3g} nats at case {case}, "
        f"token {token} (difference {numbers.adapter_off:.3g} in log-odds, at most {result.limit:.3g} is "
        "rounding); its weights or its configuration are not those that were trained",
        result,
    )


def _expect_judgeable(name: str, rounded: RoundedBase, numbers: _Numbers, result: ProbeResult) -> None:
    """Raise ProbeRefusedError where the rounding of the base could hide the adapter's strength."""
    if rounded.rounding is None:
        reason = "how far quantising moved the base was not measured"
    elif numbers.recorded_effect < EFFECT_OVER_LIMIT * result.limit:
        reason = (
            f"its rounding hides the adapter: it may move log-odds by {result.limit:.3g}, and in training the "
            f"adapter moved them by {numbers.recorded_effect:.3g}"
        )
    else:
        return
    scheme = f" ({rounded.scheme})" if rounded.scheme else ""
    raise ProbeRefusedError(
        Cause.BASE_ROUNDED,
        f"adapter {name} was proven on the base that this one was quantised from{scheme}, and {reason}; {REPROVE}",
        result,
    )


def scale_message(name: str, strength: float, result: ProbeResult, *, tried: bool = False) -> str:
    """What is said of an adapter whose answers are those of another strength, estimated or `tried` out."""
    proof = f"with {1 / strength:.3g} times its alpha it answers as in training" if tried else "by its slope"
    return (
        f"adapter {name} acts at {strength:.2f} of its trained strength ({proof}; largest difference "
        f"{result.max_difference_nats:.3g} nats): alpha, rank or rsLoRA scaling was changed after the training"
    )


class _Numbers:
    """The four values of all tokens, compared."""

    def __init__(self, measured: Sequence[Measurement]) -> None:
        recorded_base = _all(measured, lambda m: m.case.base_logprobs)
        recorded_adapter = _all(measured, lambda m: m.case.adapter_logprobs)
        base = [_number(value) for value in _all(measured, lambda m: m.base_logprobs)]
        adapter = [_number(value) for value in _all(measured, lambda m: m.adapter_logprobs)]
        self.base_nats_off = _differences(base, recorded_base)
        self.nats_off = _differences(adapter, recorded_adapter)
        odds = [
            [log_odds(value) for value in part] for part in (recorded_base, recorded_adapter, base, adapter)
        ]
        self.base_off = _rms(_differences(odds[2], odds[0]))
        self.adapter_off = _rms(_differences(odds[3], odds[1]))
        trained = [one - other for one, other in zip(odds[1], odds[0], strict=True)]
        here = [one - other for one, other in zip(odds[3], odds[2], strict=True)]
        self.recorded_effect, self.effect = _rms(trained), _rms(here)
        self.slope, self.fit = _line(trained, here)
        place = self.nats_off.index(max(self.nats_off)) if self.nats_off else 0
        self.worst = (*_place(measured, place), self.nats_off[place])


def _number(logprob: float) -> float:
    """An engine whose weights have no numbers in them answers with none."""
    return max(logprob, LEAST_LOGPROB) if math.isfinite(logprob) else LEAST_LOGPROB


def _place(measured: Sequence[Measurement], place: int) -> tuple[int, int]:
    """(case, token) of the token at `place` of all tokens."""
    for number, one in enumerate(measured):
        if place < len(one.adapter_logprobs):
            return number, place
        place -= len(one.adapter_logprobs)
    raise IndexError(place)


def _line(trained: Sequence[float], here: Sequence[float]) -> tuple[float | None, float | None]:
    """Least-squares slope of `here` over `trained`, through zero, and the cosine between them."""
    squares = math.fsum(value * value for value in trained)
    others = math.fsum(value * value for value in here)
    if squares == 0.0:
        return None, None
    product = math.fsum(one * other for one, other in zip(trained, here, strict=True))
    return product / squares, product / math.sqrt(squares * others) if others else 0.0


def _all(measured: Sequence[Measurement], part: Callable[[Measurement], Sequence[float]]) -> list[float]:
    return [value for one in measured for value in part(one)]


def _differences(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [abs(one - other) for one, other in zip(left, right, strict=True)]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values) / len(values))
