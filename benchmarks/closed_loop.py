"""The load of measurements that watch what goes on beside it: a closed loop of answers of one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.load.client.order import REFUSED_SECONDS
from benchmarks.load.client.record import Record, write_records
from benchmarks.load.client.sending import Beside, RunPlan, send
from benchmarks.load.client.target import read_target
from benchmarks.load.workload.prompt_source import PromptSource
from benchmarks.load.workload.schedule import in_turn


class LoopPlan(Protocol):
    """What a plan says of its load."""

    @property
    def asked(self) -> Sequence[str | None]:
        """Adapters that are asked in turn; None is the base."""

    @property
    def concurrency(self) -> int:
        """Requests under way at once."""

    @property
    def prompt_words(self) -> int:
        """Length of every prompt."""

    @property
    def max_tokens(self) -> int:
        """Length of every answer."""

    @property
    def request_timeout_seconds(self) -> float:
        """Longest wait for an answer."""

    @property
    def seed(self) -> int:
        """Of prompts and schedule."""


def run_closed_loop(
    url: str,
    plan: LoopPlan,
    seconds: float,
    records_path: Path,
    *,
    beside: Beside,
    salt: str = "",
    refused_seconds: float = REFUSED_SECONDS,
    progress: Callable[[dict[str, float]], None] = lambda _: None,
) -> list[Record]:
    """Load for `seconds` with `beside` going on; every request that was sent meanwhile, also in `records_path`.

    Loads with another `salt` have other prompts. Raises GeneratorFailedError.
    """
    sent = send(
        read_target(url, "generate", adapters=()),
        in_turn(
            plan.asked,
            workers=plan.concurrency,
            prompt_tokens=plan.prompt_words,
            max_tokens=plan.max_tokens,
            seed=plan.seed,
        ),
        PromptSource(plan.seed, salt=salt),
        RunPlan(
            warmup_seconds=0.0,
            seconds=seconds,
            timeout_seconds=plan.request_timeout_seconds,
            out_of_step=True,
            refused_seconds=refused_seconds,
        ),
        progress=progress,
        beside=beside,
    )
    records = [record for record in sent.records if sent.window.holds(record.sent_seconds)]
    write_records(records_path, records)
    return records
