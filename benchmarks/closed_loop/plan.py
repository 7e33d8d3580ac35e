"""How much is measured, and in which order."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.errors import PlanError

# Below three requests a worker, the span in which every worker has a request under way gets too short.
MIN_REQUESTS_PER_WORKER = 3
MAX_CONCURRENCY = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of one part."""

    concurrency: tuple[int, ...]
    rounds: int  # blocks per cell: one per round
    requests: int  # measured requests per block, at least
    max_tokens: int
    prompt_words: int = 32
    seed: int = 1
    settle_seconds: float = 2.0  # between blocks; vLLM's worker polls for 1 s after its last step
    request_timeout_seconds: float = 900.0
    ready_seconds: float = 900.0

    def requests_per_worker(self, concurrency: int) -> int:
        """Measured requests of each worker of a block."""
        return max(MIN_REQUESTS_PER_WORKER, math.ceil(self.requests / concurrency))

    def num_prompts(self, concurrency: int) -> int:
        """Prompts of a block: none is sent twice, the warm-up and the end of the block included."""
        return concurrency * (self.requests_per_worker(concurrency) + 3)

    def check(self) -> None:
        """Raise PlanError with everything that cannot be measured."""
        problems = []
        if not self.concurrency:
            problems.append("no concurrency is given; e.g. --concurrency 1,8,32")
        problems += [
            f"concurrency {number} is not between 1 and {MAX_CONCURRENCY}"
            for number in self.concurrency
            if not 1 <= number <= MAX_CONCURRENCY
        ]
        if len(set(self.concurrency)) != len(self.concurrency):
            problems.append(f"concurrency {list(self.concurrency)} names a number twice")
        if self.rounds < 1:
            problems.append(f"{self.rounds} blocks; at least 1 is needed, 5 for a spread worth reading")
        if self.requests < 1:
            problems.append(f"{self.requests} requests; at least 1 is needed")
        if self.max_tokens < 2:
            problems.append(f"{self.max_tokens} tokens per answer; a time per token needs at least 2")
        if problems:
            raise PlanError("nothing can be measured like this: " + "; ".join(problems))
