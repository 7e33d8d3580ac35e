"""Every request of a run, in order, before the first is sent; the same seed gives the same schedule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks.load.workload.arrivals import Arrivals
from benchmarks.load.workload.assignment import Assignment
from benchmarks.load.workload.lengths import Lengths

# Streams of one seed, so that another mix of adapters leaves the arrival times as they are.
_TIMES, _PROMPTS, _ANSWERS, _ADAPTERS, _CANCELS = range(5)
_CLOSED_REQUESTS = 4096  # of a closed loop, before it begins again


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. `at_seconds` counts from the start of the run; None in a closed loop: as soon as possible."""

    number: int
    at_seconds: float | None
    prompt_tokens: int
    max_tokens: int
    adapter: str | None  # None: the base
    cancel: bool = False  # hang up after the first token


@dataclass(frozen=True, slots=True)
class Schedule:
    """The requests of a run. A closed loop takes them in order for as long as it lasts, then from the start."""

    arrivals: tuple[Arrival, ...]
    closed_workers: int | None  # None: an open loop
    seed: int

    @property
    def digest(self) -> str:
        """sha256 over every request: two runs with the same digest sent the same load."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def shard(self, index: int, count: int) -> Schedule:
        """Every `count`-th request from `index` on: the shards of one schedule are together the schedule.

        The workers of a closed loop are dealt out the same way.
        """
        workers = self.closed_workers
        if workers is not None:
            workers = len(range(index, workers, count))
        return replace(self, arrivals=self.arrivals[index::count], closed_workers=workers)

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        fields = {"seed": self.seed, "closed_workers": self.closed_workers}
        return json.dumps({**fields, "arrivals": [list(asdict(one).values()) for one in self.arrivals]})

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        arrivals = tuple(Arrival(*values) for values in fields["arrivals"])
        return cls(arrivals, fields["closed_workers"], fields["seed"])


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a schedule."""

    arrivals: Arrivals
    prompts: Lengths
    answers: Lengths
    mix: Assignment
    adapters: Sequence[str]
    base_share: float = 0.0
    cancel_share: float = 0.0
    context_tokens: int = 4096  # prompt and answer together stay below it


def make_schedule(
    load: Load, *, seconds: float, seed: int, closed_requests: int = _CLOSED_REQUESTS
) -> Schedule:
    """A schedule over `seconds`; of a closed loop `closed_requests` requests.

    Raises LoadOptionError when nothing would be sent.
    """
    seeds = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(5)]
    closed = load.arrivals.closed
    times = None if closed else load.arrivals.times(seconds, seeds[_TIMES])
    count = closed_requests if times is None else len(times)
    most = max(1, load.context_tokens // 2)
    prompts = load.prompts.draw(count, seeds[_PROMPTS], least=1, most=most)
    answers = load.answers.draw(count, seeds[_ANSWERS], least=1, most=most)
    adapters = load.mix.draw(load.adapters, count, seeds[_ADAPTERS], base_share=load.base_share)
    cancels = np.random.default_rng(seeds[_CANCELS]).random(count) < load.cancel_share
    arrivals = []
    for place in range(count):
        line = load.arrivals.trace[place] if load.arrivals.trace else None
        arrivals.append(
            Arrival(
                number=place,
                at_seconds=None if times is None else round(times[place], 6),
                prompt_tokens=(line.prompt_tokens if line else None) or prompts[place],
                max_tokens=(line.max_tokens if line else None) or answers[place],
                adapter=line.adapter if line and line.adapter else adapters[place],
                cancel=bool(cancels[place]),
            )
        )
    return Schedule(tuple(arrivals), load.arrivals.workers if closed else None, seed)


def in_turn(
    who: Sequence[str | None], *, workers: int, prompt_tokens: int, max_tokens: int, seed: int
) -> Schedule:
    """A closed loop whose requests ask everybody of `who` in turn; None is the base."""
    count = len(who) * -(-_CLOSED_REQUESTS // len(who))
    arrivals = (
        Arrival(number, None, prompt_tokens, max_tokens, who[number % len(who)]) for number in range(count)
    )
    return Schedule(tuple(arrivals), workers, seed)
