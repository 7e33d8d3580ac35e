"""Asks a freshly loaded adapter something, before any client can.

Two probes. With `hotswap_probe.json` (written by the trainer) the recorded tokens are scored in this engine,
under the adapter and under the base, and must be as likely as they were in training (serve/lifecycle/verdict.py).
Without it, fixed texts must be otherwise likely than under the base: servers have answered 200 to a load and gone
on serving the base (vllm#34186, #34591, #48019, #55193).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from adapters.errors import AdapterError
from adapters.probe import Probe, ProbeCase
from adapters.target import NOT_ROUNDED, RoundedBase
from serve.engine.protocol import AdapterHandle, Engine, EngineRequest, Sampling
from serve.errors import LifecycleError, ProbeFailedError
from serve.lifecycle.effect import measure_effect
from serve.lifecycle.probe_memory import ProbeMemory
from serve.lifecycle.strength import AtStrength, likely_factors
from serve.lifecycle.turn import Turn
from serve.lifecycle.verdict import (
    Cause,
    Measurement,
    ProbeRefusedError,
    ProbeResult,
    distance,
    judge,
    recorded_effect,
    scale_message,
)

logger = logging.getLogger("hotswap.adapters")

# Cases asked at once: few enough to leave the batch to those who are served.
CASES_AT_ONCE = 4
# Cases asked at each strength that is tried.
STRENGTH_CASES = 4
# One case shows that a known adapter answers where in training the adapter moved it by so many limits.
KNOWN_EFFECT_OVER_LIMIT = 4.0


class AdapterProbe:
    """Probes adapters on one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        hold: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        at_strength: AtStrength | None = None,
        rounded: RoundedBase = NOT_ROUNDED,
        memory: ProbeMemory | None = None,
    ) -> None:
        """`rounded` says what the served base was quantised from: probes of that one are judged with its rounding.

        `hold` keeps new requests from the engine while it is entered (Admission.hold).

        `at_strength` loads an adapter at another strength; without it causes are told from the numbers alone.
        `memory` is what was learned of that engine before, and never of another one.
        """
        self._engine = engine
        self._hold = hold
        self._at_strength = at_strength
        self._rounded = rounded
        self._memory = memory or ProbeMemory()

    async def effect(self, adapter: AdapterHandle) -> ProbeResult:
        """Raises ProbeFailedError when the adapter leaves the fixed texts as likely as the base has them."""
        started = time.perf_counter()
        turn = Turn(self._hold)
        measured = await turn.take(measure_effect(self._engine, self._memory, adapter, turn))
        result = ProbeResult(
            kind="effect",
            num_cases=measured.num_texts,
            num_tokens=len(measured.differences),
            max_difference_nats=max(measured.differences),
            mean_difference_nats=math.fsum(measured.differences) / len(measured.differences),
            limit=measured.limit,
            base_difference_nats=measured.rounding,
            seconds=round(time.perf_counter() - started, 3),
        )
        if result.max_difference_nats <= result.limit:
            raise ProbeRefusedError(
                Cause.NO_EFFECT,
                f"adapter {adapter.name} changes nothing: over {result.num_tokens} tokens its logprobs are within "
                f"{result.limit:.3g} nats of the base's, which is this engine's rounding; it was probably trained "
                "on other module names or not at all",
                result,
            )
        return result

    async def replay(self, adapter: AdapterHandle, probe: Probe, *, digest: str | None = None) -> ProbeResult:
        """Raises ProbeFailedError, with cause and numbers, when the engine does not answer as in training.

        `digest` is that of the adapter's content. One that passed the whole of this very probe in this engine is
        asked the first case alone, unless that leaves a doubt.
        """
        cases = self._usable(adapter, probe)
        started = time.perf_counter()
        turn = Turn(self._hold)
        rounded = self._rounded if probe.base_fingerprint in self._rounded.originals else None

        def verdict(measured: Sequence[Measurement]) -> ProbeResult:
            return judge(
                adapter.name,
                measured,
                tolerance=probe.tolerance,
                facts=self._engine.facts,
                seconds=round(time.perf_counter() - started, 3),
                rounded=rounded,
            )

        content = (digest, await asyncio.to_thread(_content, probe)) if digest is not None else None
        if content is not None and self._memory.has_proven(*content):
            known = await turn.take(self._measure_known(adapter, cases[0], turn))
            with contextlib.suppress(ProbeRefusedError):  # one case is too few for a refusal
                result = verdict([known])
                if recorded_effect(cases[0]) > KNOWN_EFFECT_OVER_LIMIT * result.limit:
                    return result
            self._memory.doubt(*content)
        measured = await turn.take(self._measure(adapter, cases, turn))
        try:
            result = verdict(measured)
        except ProbeRefusedError as error:
            if error.cause not in (Cause.OTHER, Cause.WRONG_SCALE) or self._at_strength is None:
                raise
            slope = error.result.slope if rounded is None else None
            await turn.take(self._raise_strength(adapter, measured, error.result, slope, turn))
            raise
        if content is not None:
            self._memory.keep_proven(*content)
        return result

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

    async def _measure(
        self, adapter: AdapterHandle, cases: Sequence[ProbeCase], turn: Turn
    ) -> list[Measurement]:
        at_once = asyncio.Semaphore(CASES_AT_ONCE)

        async def ask(case: ProbeCase) -> Measurement:
            async with at_once:
                base = await self._base(case, turn)
                answered = await self._as_served(case, adapter)
                turn.answered()
            return Measurement(case, base, tuple(answered))

        asked = [asyncio.create_task(ask(case)) for case in cases]
        try:
            return await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)

    async def _measure_known(self, adapter: AdapterHandle, case: ProbeCase, turn: Turn) -> Measurement:
        answered = await self._scored(case, adapter, turn)
        return Measurement(case, await self._base(case, turn), tuple(answered))

    async def _base(self, case: ProbeCase, turn: Turn) -> tuple[float, ...]:
        """What the base makes of a case; remembered, because its weights do not change while the engine lives."""
        said = self._memory.base_said(case.prompt_token_ids, case.expected_token_ids)
        if said is None:
            said = tuple(await self._scored(case, None, turn))
            self._memory.keep_base(case.prompt_token_ids, case.expected_token_ids, said)
        return said

    async def _as_served(self, case: ProbeCase, adapter: AdapterHandle) -> list[float]:
        """Logprobs of the expected tokens: as an answer, the way clients get one, as far as it goes the same
        way; scored from there."""
        expected = case.expected_token_ids
        request = EngineRequest(
            request_id=f"probe-{next(self._memory.request_ids)}",
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


def _content(probe: Probe) -> str:
    return hashlib.sha256(probe.model_dump_json().encode()).hexdigest()
