"""What is measured, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.closed_loop.errors import PlanError

SWAPPED = "swapped"


@dataclass(frozen=True, slots=True)
class Plan:
    """Pairs of blocks: one with the adapters at rest, one in which one of them is replaced all the time."""

    pairs: int
    block_seconds: float
    concurrency: int  # lanes that ask the other adapters
    swapped_concurrency: int  # lanes that ask the adapter that is replaced, in both kinds of block
    bystanders: int
    versions: int
    interval_seconds: float
    max_tokens: int
    prompt_words: int
    rank: int
    warm_up_seconds: float = 5.0  # of each block; swaps go on in it, nothing is counted
    request_timeout_seconds: float = 120.0
    ready_seconds: float = 900.0
    seed: int = 1

    @property
    def names(self) -> list[str]:
        """The other adapters."""
        return [f"bystander-{number}" for number in range(self.bystanders)]

    @property
    def lanes(self) -> list[list[str | None]]:
        """One adapter for each lane."""
        others: list[list[str | None]] = [
            [self.names[number % self.bystanders]] for number in range(self.concurrency)
        ]
        swapped: list[list[str | None]] = [[SWAPPED] for _ in range(self.swapped_concurrency)]
        return others + swapped

    @property
    def order(self) -> list[tuple[int, bool]]:
        """(pair, whether swaps go on) of each block; every second pair begins with swaps."""
        return [
            (pair, swapping)
            for pair in range(self.pairs)
            for swapping in ((False, True) if pair % 2 == 0 else (True, False))
        ]

    def check(self) -> None:
        """Raise PlanError with everything that cannot be measured."""
        problems = [
            f"{name} is {value}; at least {least} is needed"
            for name, value, least in (
                ("--pairs", self.pairs, 1),
                ("--concurrency", self.concurrency, 1),
                ("--bystanders", self.bystanders, 1),
                ("--versions", self.versions, 2),
                ("--max-tokens", self.max_tokens, 2),
                ("--rank", self.rank, 1),
            )
            if value < least
        ]
        if self.block_seconds <= 0 or self.interval_seconds <= 0:
            problems.append("--block-seconds and --interval-seconds are above 0")
        if problems:
            raise PlanError("; ".join(problems))
