"""A schedule is sent: the processes that do it, and every request as they saw it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.client.order import REFUSED_SECONDS, Order, Outcome
from benchmarks.load.client.record import Record, read_records
from benchmarks.load.client.target import Target
from benchmarks.load.errors import GeneratorFailedError
from benchmarks.load.verbs import Verb
from benchmarks.load.window import Window
from benchmarks.load.workload.prompt_source import PromptSource
from benchmarks.load.workload.schedule import Schedule
from benchmarks.surroundings import CHECKOUT

GENERATOR = "benchmarks.load.client.generator"
_READY_SECONDS = 120.0  # for the imports of a generating process
_LEAD_SECONDS = 0.5  # for the first thousand of its users
_GRACE_SECONDS = 60.0

# Entered when a run begins, with that moment by `time.monotonic`, and left when it has ended.
Beside = Callable[[float], AbstractContextManager[Sequence[Verb]]]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How a schedule is sent."""

    warmup_seconds: float
    seconds: float
    stream: bool = True
    timeout_seconds: float = 120.0
    max_in_flight: int = 512
    workers: int = 1  # generating processes
    key: str | None = None
    web_port: int | None = None
    keep_alive: bool = True
    tail_seconds: float | None = (
        None  # how long requests of the window are waited for after it; None: to their end
    )
    metrics_every_seconds: float = 1.0  # between two readings of the server's /metrics; 0: at both ends alone
    # Of a closed loop with one generating process: the window begins when every worker has an answer, and ends with
    # the beginning of the request after so many, or after `seconds`. None: it is that of the clock.
    requests: int | None = None
    out_of_step: bool = False  # in a closed loop the workers' first answers are of different lengths
    refused_seconds: float = REFUSED_SECONDS  # a worker of a closed loop waits so long after a failure

    @property
    def window(self) -> Window:
        """What is measured, by the clock. Load goes on around it, so that nothing starts or drains inside."""
        return Window(self.warmup_seconds, self.warmup_seconds + self.seconds)


@dataclass(frozen=True, slots=True)
class Sent:
    """Everything that came back."""

    records: list[Record]  # in the order in which they were due
    outcomes: Sequence[Outcome]  # of the processes that sent
    window: Window
    verbs: Sequence[Verb] = ()  # what was done beside


def send(
    target: Target,
    schedule: Schedule,
    prompts: PromptSource,
    plan: RunPlan,
    *,
    progress: Callable[[dict[str, float]], None] = lambda _: None,
    beside: Beside | None = None,
) -> Sent:
    """Send a schedule to its end; `progress` is told once a second, and `beside` goes on meanwhile.

    Raises GeneratorFailedError.
    """
    with tempfile.TemporaryDirectory(prefix="hotswap-load-") as folder:
        orders = _orders(target, schedule, prompts, plan, Path(folder))
        limit = _READY_SECONDS + plan.window.end + plan.timeout_seconds + _GRACE_SECONDS
        outcomes, verbs = _run(orders, Path(folder), limit, progress, beside or _nothing)
        records = [record for order in orders for record in read_records(order.records_path)]
    records.sort(key=lambda record: (record.scheduled_seconds, record.number))
    first = outcomes[0]
    return Sent(records, outcomes, Window(first.window_start_seconds, first.window_end_seconds), verbs)


def _orders(
    target: Target, schedule: Schedule, prompts: PromptSource, plan: RunPlan, folder: Path
) -> list[Order]:
    return [
        Order(
            url=target.url,
            dialect=target.dialect,
            stream=plan.stream,
            model=target.base,
            schedule=schedule.shard(index, plan.workers),
            prompts=prompts,
            measure_from_seconds=plan.window.start,
            measure_to_seconds=plan.window.end,
            timeout_seconds=plan.timeout_seconds,
            max_in_flight=max(1, plan.max_in_flight // plan.workers),
            records_path=folder / f"records-{index}.jsonl",
            key=plan.key,
            web_port=plan.web_port if index == 0 else None,
            keep_alive=plan.keep_alive,
            tail_seconds=plan.tail_seconds,
            requests=plan.requests,
            out_of_step=plan.out_of_step,
            refused_seconds=plan.refused_seconds,
        )
        for index in range(plan.workers)
    ]


def _nothing(_: float) -> AbstractContextManager[Sequence[Verb]]:
    return contextlib.nullcontext(())


def _run(
    orders: Sequence[Order],
    folder: Path,
    limit_seconds: float,
    progress: Callable[[dict[str, float]], None],
    beside: Beside,
) -> tuple[list[Outcome], Sequence[Verb]]:
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(_generator(order, folder, index)) for index, order in enumerate(orders)
        ]
        watch = threading.Timer(limit_seconds, _kill_all, [running])
        watch.start()
        try:
            for index, process in enumerate(running):
                _await_ready(process, folder / f"errors-{index}.txt")
            users = max(order.max_in_flight for order in orders)
            start_at = time.monotonic() + _LEAD_SECONDS * max(1.0, users / 500)
            for process in running:
                _tell(process, f"{start_at!r}\n")
            with beside(start_at) as verbs:
                outcomes = [
                    _follow(
                        process, folder / f"errors-{index}.txt", progress if index == 0 else lambda _: None
                    )
                    for index, process in enumerate(running)
                ]
        finally:
            watch.cancel()
    return outcomes, verbs


@contextlib.contextmanager
def _generator(order: Order, folder: Path, index: int) -> Iterator[subprocess.Popen[str]]:
    path = folder / f"order-{index}.json"
    path.write_text(order.to_json(), encoding="utf-8")
    path.chmod(0o600)  # it may hold a key
    with (folder / f"errors-{index}.txt").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", GENERATOR, str(path)],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stdin):
            if pipe is not None:
                pipe.close()


def _await_ready(process: subprocess.Popen[str], errors: Path) -> None:
    said = process.stdout.readline() if process.stdout is not None else ""
    if not said:
        process.wait()
        raise GeneratorFailedError(f"a generating process did not start: {_reason(errors)}")


def _tell(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it ended; what it said is read below
            process.stdin.write(line)
            process.stdin.flush()


def _reason(errors: Path) -> str:
    return errors.read_text(encoding="utf-8", errors="replace").strip()[-1000:] or "it gave no reason"


def _follow(
    process: subprocess.Popen[str], errors: Path, progress: Callable[[dict[str, float]], None]
) -> Outcome:
    outcome: Outcome | None = None
    for line in process.stdout or ():
        said = json.loads(line)
        if "progress" in said:
            progress(said["progress"])
        else:
            outcome = Outcome(**said["outcome"])
    code = process.wait()
    if outcome is None:
        raise GeneratorFailedError(f"a generating process ended with exit code {code}: {_reason(errors)}")
    return outcome


def _kill_all(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
