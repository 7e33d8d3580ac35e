"""Asks a freshly loaded adapter something, before any client can.

Two probes. With `hotswap_probe.json` (written by the trainer) the recorded tokens are scored in this engine,
under the adapter and under the base, and must be as likely as they were in training (serve/lifecycle/verdict.py).
Without it, fixed texts must be otherwise likely than under the base: servers have answered 200 to a load and gone
on serving the base (vllm#34186, #34591, #48019, #55193).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from adapters.errors import AdapterError
from adapters.probe import Probe, ProbeCase
from adapters.target import NOT_ROUNDED, RoundedBase
from serve.engine.protocol import AdapterHandle, Engine, EngineRequest, Sampling
from serve.errors import LifecycleError, ProbeFailedError
from serve.lifecycle.strength import AtStrength, likely_factors
from serve.lifecycle.turn import Turn
from serve.lifecycle.verdict import (
    Cause,
    Measurement,
    ProbeRefusedError,
    ProbeResult,
    distance,
    judge,
    scale_message,
)

logger = logging.getLogger("hotswap.adapters")

EFFECT_TEXTS = (
    "The answer is that nobody knew where the letter had come from.",
    "Dear customer, thank you for your order; we will send it tomorrow.",
    'def main():\n    for name in names:\n        print("Hello", name)\n',
)
# Two askings of the same weights in different batches differ by rounding; an adapter that works differs by more.
MIN_EFFECT_NATS = 1e-6
# Of the largest difference between two askings of the base.
EFFECT_OVER_ROUNDING = 1.5
# An effect beyond both is told from rounding without asking the base again.
SURE_OVER_ROUNDING = 10.0
SURE_EFFECT_NATS = {"float32": 0.01, "float16": 0.3, "bfloat16": 1.0}
# Cases asked at once: few enough to leave the batch to those who are served.
CASES_AT_ONCE = 4
# Cases asked at each strength that is tried.
STRENGTH_CASES = 4


@dataclass(frozen=True, slots=True)
class _Effect:
    """How far an adapter's logprobs are from the base's, and two askings of the base from each other."""

    differences: list[float]
    rounding: float
    num_texts: int


class AdapterProbe:
    """Probes adapters on one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        hold: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        at_strength: AtStrength | None = None,
        rounded: RoundedBase = NOT_ROUNDED,
    ) -> None:
        """`rounded` says what the served base was quantised from: probes of that one are judged with its rounding.

        `hold` keeps new requests from the engine while it is entered (Admission.hold).

        `at_strength` loads an adapter at another strength; without it causes are told from the numbers alone.
        """
        self._engine = engine
        self._hold = hold
        self._at_strength = at_strength
        self._rounded = rounded
        self._request_ids = itertools.count(1)
        self._base_said: list[float] | None = None  # logprobs of the fixed texts under the base
        self._rounding_seen = 0.0  # largest difference between two askings of the base

    async def effect(self, adapter: AdapterHandle) -> ProbeResult:
        """Raises ProbeFailedError when the adapter leaves the fixed texts as likely as the base has them.

        An engine under load is asked as little as will do: what the base said is remembered, and one text on
        which the adapter is beyond all rounding is enough. Where that is not sure, both are asked everything anew.
        """
        started = time.perf_counter()
        turn = Turn(self._hold)
        measured = await turn.take(self._measure_effect(adapter, turn))
        limit = max(MIN_EFFECT_NATS, EFFECT_OVER_ROUNDING * measured.rounding)
        result = ProbeResult(
            kind="effect",
            num_cases=measured.num_texts,
            num_tokens=len(measured.differences),
            max_difference_nats=max(measured.differences),
            mean_difference_nats=math.fsum(measured.differences) / len(measured.differences),
            limit=limit,
            base_difference_nats=measured.rounding,
            seconds=round(time.perf_counter() - started, 3),
        )
        if result.max_difference_nats <= limit:
            raise ProbeRefusedError(
                Cause.NO_EFFECT,
                f"adapter {adapter.name} changes nothing: over {result.num_tokens} tokens its logprobs are within "
                f"{limit:.3g} nats of the base's, which is this engine's rounding; it was probably trained on "
                "other module names or not at all",
                result,
            )
        return result

    async def replay(self, adapter: AdapterHandle, probe: Probe) -> ProbeResult:
        """Raises ProbeFailedError, with cause and numbers, when the engine does not answer as in training."""
        cases = self._usable(adapter, probe)
        started = time.perf_counter()
        turn = Turn(self._hold)
        measured = await turn.take(self._measure(adapter, cases, turn))
        seconds = round(time.perf_counter() - started, 3)
        rounded = self._rounded if probe.base_fingerprint in self._rounded.originals else None
        try:
            return judge(
                adapter.name,
                measured,
                tolerance=probe.tolerance,
                facts=self._engine.facts,
                seconds=seconds,
                rounded=rounded,
            )
        except ProbeRefusedError as error:
            if error.cause not in (Cause.OTHER, Cause.WRONG_SCALE) or self._at_strength is None:
                raise
            slope = error.result.slope if rounded is None else None
            await turn.take(self._raise_strength(adapter, measured, error.result, slope, turn))
            raise

    async def _raise_strength(
        self,
        adapter: AdapterHandle,
        measured: Sequence[Measurement],
        result: ProbeResult,
        slope: float | None,
        turn: Turn,
    ) -> None:
        """Raise the refusal for a wrong scale when another strength makes the adapter answer as in training.

        `slope` is where it is looked for first; None: the numbers say nothing about it.
        """
        if self._at_strength is None:
            return
        few = measured[:STRENGTH_CASES]
        for factor in await asyncio.to_thread(likely_factors, adapter.path, slope):
            try:
                async with self._at_strength(adapter, factor) as scaled:
                    tried = [
                        replace(one, adapter_logprobs=tuple(await self._scored(one.case, scaled, turn)))
                        for one in few
                    ]
            except (AdapterError, LifecycleError) as failed:
                logger.warning("adapter %s could not be tried at another strength: %s", adapter.name, failed)
                return
            if distance(tried) <= result.limit:
                raise ProbeRefusedError(
                    Cause.WRONG_SCALE, scale_message(adapter.name, 1 / factor, result, tried=True), result
                )

    async def _scored(self, case: ProbeCase, adapter: AdapterHandle | None, turn: Turn) -> list[float]:
        found = await self._engine.score(case.prompt_token_ids, case.expected_token_ids, adapter)
        turn.answered()
        return found

    def _usable(self, adapter: AdapterHandle, probe: Probe) -> list[ProbeCase]:
        """The cases that fit the served context."""
        facts = self._engine.facts
        for number, case in enumerate(probe.cases):
            largest = max(*case.prompt_token_ids, *case.expected_token_ids)
            if largest >= facts.vocab_size:
                raise ProbeFailedError(
                    f"the probe of adapter {adapter.name} has token {largest} in case {number}; the base's "
                    f"vocabulary ends at {facts.vocab_size - 1}: it was recorded with another tokenizer",
                    cause=Cause.BASE_DIFFERS,
                )
        usable = [
            case
            for case in probe.cases
            if len(case.prompt_token_ids) + len(case.expected_token_ids) <= facts.context_tokens
        ]
        if not usable:
            raise ProbeFailedError(
                f"no case of the probe of adapter {adapter.name} fits the served context of "
                f"{facts.context_tokens} tokens; raise --max-model-len or record shorter ones",
            )
        return usable

    async def _measure_effect(self, adapter: AdapterHandle, turn: Turn) -> _Effect:
        longest = self._engine.facts.context_tokens - 1
        texts = [self._engine.codec.encode(text, parse_special=False)[:longest] for text in EFFECT_TEXTS]

        async def ask(who: AdapterHandle | None) -> list[float]:
            # At once, so that one turn in the engine is enough for all.
            found = await asyncio.gather(*(self._engine.score(text[:1], text[1:], who) for text in texts))
            turn.answered()
            return list(itertools.chain.from_iterable(found))

        if self._base_said is not None:
            first = texts[0]
            answered = await self._engine.score(first[:1], first[1:], adapter)
            turn.answered()
            differences = _differences(answered, self._base_said[: len(answered)])
            if max(differences) > self._sure_nats():
                return _Effect(differences, self._rounding_seen, num_texts=1)
        base, answered, again = await asyncio.gather(ask(None), ask(adapter), ask(None))
        rounding = max(_differences(base, again))
        self._base_said, self._rounding_seen = base, max(rounding, self._rounding_seen)
        return _Effect(_differences(answered, base), rounding, num_texts=len(texts))

    def _sure_nats(self) -> float:
        """More than any rounding between two batches of this engine."""
        least = SURE_EFFECT_NATS.get(self._engine.facts.dtype, SURE_EFFECT_NATS["bfloat16"])
        if self._engine.facts.quantisation is not None:
            least = max(least, SURE_EFFECT_NATS["bfloat16"])
        return max(least, SURE_OVER_ROUNDING * self._rounding_seen)

    async def _measure(
        self, adapter: AdapterHandle, cases: Sequence[ProbeCase], turn: Turn
    ) -> list[Measurement]:
        at_once = asyncio.Semaphore(CASES_AT_ONCE)

        async def ask(case: ProbeCase) -> Measurement:
            async with at_once:
                base = await self._scored(case, None, turn)
                answered = await self._as_served(case, adapter)
                turn.answered()
            return Measurement(case, tuple(base), tuple(answered))

        asked = [asyncio.create_task(ask(case)) for case in cases]
        try:
            return await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)

    async def _as_served(self, case: ProbeCase, adapter: AdapterHandle) -> list[float]:
        """Logprobs of the expected tokens: as an answer, the way clients get one, as far as it goes the same
        way; scored from there."""
        expected = case.expected_token_ids
        request = EngineRequest(
            request_id=f"probe-{next(self._request_ids)}",
            prompt_token_ids=case.prompt_token_ids,
            sampling=Sampling(max_tokens=len(expected), temperature=0.0, logprobs=0, ignore_eos=True),
            adapter=adapter,
            stream=False,
            urgent=True,
        )
        found: list[float] = []
        async for output in self._engine.generate(request):
            for token in itertools.chain.from_iterable(delta.logprobs for delta in output.deltas):
                if len(found) == len(expected) or token.token_id != expected[len(found)]:
                    break
                found.append(token.logprob)
        if len(found) < len(expected):
            said = [*case.prompt_token_ids, *expected[: len(found)]]
            found += await self._engine.score(said, expected[len(found) :], adapter)
        return found


def _differences(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [abs(left - right) for left, right in zip(one, other, strict=True)]
