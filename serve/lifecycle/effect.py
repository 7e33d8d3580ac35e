"""Whether an adapter without a recorded probe does anything to fixed texts, against what the base makes of them.

An engine under load is asked as little as will do: what the base said is remembered, and the adapter is asked the
beginning of one text, then whole texts, one after another, until its effect is beyond all rounding. Only where that
is never sure are base and adapter asked everything anew, the base twice, to see what its rounding is now.

What is sure goes by the root mean square over tokens. If an adapter does nothing its answer is one more asking of
the base, and two of those differ by 0.1 in bfloat16 (0.08 to 0.11 against float32, docs/architecture.md) however
many tokens are looked at, while the largest difference grows with their number.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from serve.engine.protocol import AdapterHandle, Engine, EngineFacts
from serve.lifecycle.probe_memory import ProbeMemory
from serve.lifecycle.turn import Turn

EFFECT_TEXTS = (
    "The answer is that nobody knew where the letter had come from.",
    "Dear customer, thank you for your order; we will send it tomorrow.",
    'def main():\n    for name in names:\n        print("Hello", name)\n',
)
# Of the first text, asked before any whole one: few enough to cost a step of the engine little.
FIRST_TOKENS = 9
# Two askings of the same weights in different batches differ by rounding; an adapter that works differs by more.
MIN_EFFECT_NATS = 1e-6
# Of the largest difference between two askings of the base.
EFFECT_OVER_ROUNDING = 1.5
# An effect beyond both, in root mean square, is told from rounding without asking the base again.
SURE_OVER_ROUNDING = 5.0
SURE_EFFECT_NATS = {"float32": 0.003, "float16": 0.1, "bfloat16": 0.3}


@dataclass(frozen=True, slots=True)
class Effect:
    """How far an adapter's logprobs are from the base's, and two askings of the base from each other."""

    differences: list[float]
    rounding: float
    num_texts: int

    @property
    def limit(self) -> float:
        """The least largest difference that counts."""
        return max(MIN_EFFECT_NATS, EFFECT_OVER_ROUNDING * self.rounding)


async def measure_effect(engine: Engine, memory: ProbeMemory, adapter: AdapterHandle, turn: Turn) -> Effect:
    """Ask `engine`; `turn` is told of each answer. Raises what `Engine.score` raises."""
    longest = engine.facts.context_tokens - 1
    texts = [engine.codec.encode(text, parse_special=False)[:longest] for text in EFFECT_TEXTS]

    async def ask(text: Sequence[int], who: AdapterHandle | None) -> list[float]:
        found = await engine.score(text[:1], text[1:], who)
        turn.answered()
        return found

    async def ask_all(who: AdapterHandle | None) -> list[float]:
        # At once, so that one turn in the engine is enough for all.
        return list(itertools.chain.from_iterable(await asyncio.gather(*(ask(text, who) for text in texts))))

    remembered = [memory.base_said(text[:1], text[1:]) for text in texts]
    known = [(text, said) for text, said in zip(texts, remembered, strict=True) if said is not None]
    if len(known) == len(texts):
        differences: list[float] = []
        for number, (text, said) in enumerate([(texts[0][:FIRST_TOKENS], known[0][1]), *known]):
            answered = await ask(text, adapter)
            one = _differences(answered, said[: len(answered)])
            differences = one if number <= 1 else differences + one  # the first is part of the second
            found = Effect(differences, memory.rounding_max_nats, num_texts=max(1, number))
            if _rms(differences) > sure_nats(engine.facts, memory) and max(differences) > found.limit:
                return found
    base, answered, again = await asyncio.gather(ask_all(None), ask_all(adapter), ask_all(None))
    rounding = _differences(base, again)
    memory.note_rounding(max(rounding), _rms(rounding))
    said_by_base = iter(base)
    for text in texts:
        memory.keep_base(text[:1], text[1:], list(itertools.islice(said_by_base, len(text) - 1)))
    return Effect(_differences(answered, base), max(rounding), num_texts=len(texts))


def sure_nats(facts: EngineFacts, memory: ProbeMemory) -> float:
    """Root mean square beyond any rounding between two batches of this engine."""
    least = SURE_EFFECT_NATS.get(facts.dtype, SURE_EFFECT_NATS["bfloat16"])
    if facts.quantisation is not None:
        least = max(least, SURE_EFFECT_NATS["bfloat16"])
    return max(least, SURE_OVER_ROUNDING * memory.rounding_rms_nats)


def _differences(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [abs(left - right) for left, right in zip(one, other, strict=True)]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values) / len(values))
