"""Runs the blocks of a part in turns and keeps every request."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from benchmarks.closed_loop.block import Block, Cost, measure_block
from benchmarks.closed_loop.client import BlockOrder, BlockOutcome
from benchmarks.closed_loop.clock import Clock
from benchmarks.closed_loop.part import Contender, Part
from benchmarks.closed_loop.plan import Plan
from benchmarks.closed_loop.prompts import make_prompts
from benchmarks.errors import ClientFailedError, NoAnswerError
from benchmarks.server import Server, running
from benchmarks.surroundings import CHECKOUT
from benchmarks.turns import rotated

CLIENT_MODULE = "benchmarks.closed_loop.client"
_CLIENT_GRACE_SECONDS = 120.0
_WARM_UP_TOKENS = 8


@dataclass(slots=True)
class Progress:
    """Who is told what happens; both do nothing unless set."""

    say: Callable[[str], None] = field(default=lambda _: None)
    block_done: Callable[[Block], None] = field(default=lambda _: None)


class Measurement:
    """One part, from starting its servers to its last block."""

    def __init__(self, part: Part, plan: Plan, *, out: Path, progress: Progress | None = None) -> None:
        self.part = part
        self.plan = plan
        self.blocks: list[Block] = []
        self._out = out
        self._progress = progress or Progress()

    @property
    def num_blocks(self) -> int:
        """Blocks that `run` will measure."""
        return self.plan.rounds * len(self.plan.concurrency) * len(self.part.contenders)

    def run(self) -> list[Block]:
        """Measure. Every request is a line of `requests-PART.jsonl` in the output folder.

        Raises ServerStartError, ClientFailedError, NoAnswerError.
        """
        with (self._out / f"requests-{self.part.name}.jsonl").open("w", encoding="utf-8") as raw:
            if self.part.together:
                self._run_together(raw)
            else:
                self._run_apart(raw)
        return self.blocks

    def run_on(
        self, servers: Mapping[str, Server], *, first_round: int = 0, deadline: float | None = None
    ) -> list[Block]:
        """Measure servers that are up, in rounds from `first_round` on; requests are added to the file.

        A round that would end after `deadline` (of `time.monotonic`) is left out, the first one excepted; how
        long it takes is taken from the one before. Raises ClientFailedError, NoAnswerError.
        """
        with (self._out / f"requests-{self.part.name}.jsonl").open("a", encoding="utf-8") as raw:
            self._rounds(servers, raw, first_round, deadline)
        return self.blocks

    def _run_together(self, raw: IO[str]) -> None:
        part = self.part
        self._starting([spec.title for spec in part.servers])
        with running(part.servers, logs=self._out, ready_seconds=self.plan.ready_seconds) as servers:
            self._rounds(servers, raw, 0, None)

    def _rounds(
        self, servers: Mapping[str, Server], raw: IO[str], first_round: int, deadline: float | None
    ) -> None:
        part, plan = self.part, self.plan
        for contender in part.contenders:
            self._warm_up(contender, servers)
        round_seconds = 0.0
        for number in range(first_round, plan.rounds):
            started = time.monotonic()
            if deadline is not None and number > first_round and started + round_seconds > deadline:
                left_out = plan.rounds - number
                self._progress.say(f"{part.name}: no time for the last {left_out} of {plan.rounds} rounds")
                return
            for concurrency in plan.concurrency:
                for contender in rotated(part.contenders, number):
                    self._block(contender, concurrency, number, servers, raw)
            round_seconds = time.monotonic() - started

    def _run_apart(self, raw: IO[str]) -> None:
        part, plan = self.part, self.plan
        for number in range(plan.rounds):
            for spec in rotated(part.servers, number):
                self._starting([spec.title])
                with running([spec], logs=self._out, ready_seconds=plan.ready_seconds) as servers:
                    contenders = [c for c in part.contenders if c.server == spec.name]
                    for contender in contenders:
                        self._warm_up(contender, servers)
                    for concurrency in plan.concurrency:
                        for contender in contenders:
                            self._block(contender, concurrency, number, servers, raw)

    def _starting(self, titles: list[str]) -> None:
        self._progress.say(f"{self.part.name}: starting {' and '.join(titles)}")

    def _warm_up(self, contender: Contender, servers: Mapping[str, Server]) -> None:
        """Short load at the highest concurrency that nobody counts: kernels and caches get their first use."""
        self._progress.say(f"{self.part.name}: warming up {contender.title}")
        plan = replace(self.plan, max_tokens=_WARM_UP_TOKENS, requests=1, seed=self.plan.seed - 1)
        self._load(contender, max(plan.concurrency), plan, servers, salt=0)

    def _block(
        self,
        contender: Contender,
        concurrency: int,
        number: int,
        servers: Mapping[str, Server],
        raw: IO[str],
    ) -> None:
        time.sleep(self.plan.settle_seconds)
        outcome, cost = self._load(contender, concurrency, self.plan, servers, salt=number)
        block = measure_block(
            outcome.samples,
            cost,
            part=self.part.name,
            contender=contender.name,
            concurrency=concurrency,
            round_number=number,
        )
        head = {"contender": contender.name, "concurrency": concurrency, "round": number}
        for sample in outcome.samples:
            raw.write(json.dumps({**head, **_rounded(sample.to_dict())}) + "\n")
        raw.flush()
        if not block.answered:
            reasons = "; ".join(block.errors) or "no measured request came to an end"
            raise NoAnswerError(
                f"{contender.title} answered none of {block.attempted} requests at concurrency "
                f"{concurrency}: {reasons}. Its log is in {self._out}."
            )
        self.blocks.append(block)
        self._progress.block_done(block)

    def _load(
        self,
        contender: Contender,
        concurrency: int,
        plan: Plan,
        servers: Mapping[str, Server],
        *,
        salt: int,
    ) -> tuple[BlockOutcome, Cost]:
        server = servers[contender.server]
        # Nobody ever sees a prompt twice, which keeps prefix caches out of the comparison: two contenders may
        # share a server. All prompts are equally long.
        seed = f"{plan.seed}/{salt}/{concurrency}/{contender.name}"
        order = BlockOrder(
            url=server.url,
            dialect=contender.dialect,
            model=server.spec.model,
            prompts=make_prompts(plan.num_prompts(concurrency), words=plan.prompt_words, seed=seed),
            concurrency=concurrency,
            requests_per_worker=plan.requests_per_worker(concurrency),
            max_tokens=plan.max_tokens,
            request_timeout_seconds=plan.request_timeout_seconds,
        )
        before = Clock.read(servers)
        outcome = run_client(order)
        return outcome, before.cost_since(Clock.read(servers), server, outcome.cpu_seconds)


def run_client(order: BlockOrder) -> BlockOutcome:
    """Send a block from a process of its own. Raises ClientFailedError."""
    per_worker = order.requests_per_worker + 2
    limit_seconds = order.request_timeout_seconds * per_worker + _CLIENT_GRACE_SECONDS
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "outcome.json"
        try:
            done = subprocess.run(
                [sys.executable, "-m", CLIENT_MODULE, str(answer)],
                input=json.dumps(asdict(order)),
                capture_output=True,
                text=True,
                cwd=CHECKOUT,
                timeout=limit_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClientFailedError(f"the load client did not end within {limit_seconds:g} s") from None
        if done.returncode != 0 or not answer.is_file():
            reason = done.stderr.strip()[-1000:] or "it gave no reason"
            raise ClientFailedError(f"the load client ended with exit code {done.returncode}: {reason}")
        return BlockOutcome.from_json(answer.read_text(encoding="utf-8"))


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    """Microseconds are plenty."""
    return {
        name: [round(item, 6) for item in value]
        if isinstance(value, list)
        else round(value, 6)
        if isinstance(value, float)
        else value
        for name, value in fields.items()
    }
