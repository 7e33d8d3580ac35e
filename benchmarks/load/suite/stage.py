"""What a part has at hand while it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.load.bench import Bench
from benchmarks.load.errors import NothingMeasuredError
from benchmarks.load.own_gateway import OwnGateway
from benchmarks.load.run import RunResult
from benchmarks.load.suite.budget import Lengths
from benchmarks.load.workload.arrivals import parse_arrivals


@dataclass(frozen=True, slots=True)
class Measured:
    """What a part brought: runs, and what it concludes from them or instead of them."""

    runs: Sequence[RunResult]
    conclusion: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """One gateway with adapters, and the load that its parts have in common."""

    gateway: OwnGateway
    bench: Bench
    concurrency: tuple[int, ...]  # of the closed loops; the last one shows the capacity
    capacity_req_s: float | None  # that was given, or that an earlier part found
    progress: Callable[[dict[str, float]], None]
    say: Callable[[str], None]

    def of_part(self, key: str, lengths: Lengths, capacity_req_s: float | None) -> Stage:
        """For one part: runs of these lengths, and texts that no other part sends: no prefix cache knows them."""
        bench = self.bench
        update = {"seconds": lengths.seconds, "warmup_seconds": lengths.warmup_seconds}
        own = replace(
            bench,
            settings=bench.settings.model_copy(update=update),
            prompts=replace(bench.prompts, salt=key),
        )
        return replace(self, bench=own, capacity_req_s=capacity_req_s)

    def bench_at(self, share: float) -> Bench:
        """The load as an open loop (Poisson) at this share of the capacity. Raises NothingMeasuredError."""
        arrivals = parse_arrivals(f"poisson:{self.rate(share):g}")
        return replace(self.bench, load=replace(self.bench.load, arrivals=arrivals))

    def run_at(self, share: float, name: str, *, seed: int = 0) -> RunResult:
        """One run of it. Raises BenchmarkError."""
        bench = self.bench_at(share)
        self.say(f"{name}: {bench.load.arrivals.text}")
        seed += bench.settings.seed
        return bench.run(name, bench.load.arrivals, seed=seed, progress=self.progress)

    def rate(self, share: float) -> float:
        """Requests per second. Raises NothingMeasuredError when no part has found the capacity."""
        if self.capacity_req_s is None:
            raise NothingMeasuredError(
                "the capacity is not known: run the part `closed` as well, or give --capacity"
            )
        return round(share * self.capacity_req_s, 3)
