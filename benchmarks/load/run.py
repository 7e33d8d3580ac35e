"""One run: the schedule, the processes that send it, and everything that came back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.load.disturbance import read_use
from benchmarks.load.errors import GeneratorFailedError, NothingMeasuredError
from benchmarks.load.figures import Window, adapter_figures, fairness, run_figures, timeline
from benchmarks.load.marks import mark
from benchmarks.load.order import Order, Outcome
from benchmarks.load.prompt_source import PromptSource
from benchmarks.load.record import Record
from benchmarks.load.schedule import Schedule
from benchmarks.load.scraper import Scraper
from benchmarks.load.server_metrics import WANTED, server_figures
from benchmarks.load.slo import Slo
from benchmarks.load.stages import stage_split
from benchmarks.load.target import Target
from benchmarks.load.validity import Finding, findings
from benchmarks.load.verbs import Verb
from benchmarks.machine_time import MachineTime
from benchmarks.surroundings import CHECKOUT

GENERATOR = "benchmarks.load.generator"
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

    @property
    def window(self) -> Window:
        """What is measured. Load goes on before and after it, so that nothing starts or drains inside."""
        return Window(self.warmup_seconds, self.warmup_seconds + self.seconds)


@dataclass(slots=True)
class RunResult:
    """What one run brought."""

    name: str
    records: list[Record]
    window: Window
    figures: dict[str, Any]
    adapters: dict[str, dict[str, Any]]
    fairness: float | None
    findings: list[Finding]
    timeline: list[dict[str, float]]
    schedule_digest: str
    client: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)  # server_metrics.server_figures
    stages: dict[str, Any] | None = None  # stages.stage_split
    swaps: list[Verb] = field(default_factory=list)  # changes of adapters during the run

    @property
    def valid(self) -> bool:
        """Whether its figures count."""
        return not any(finding.invalid for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For the result file; the raw records lie beside it."""
        return {
            "name": self.name,
            "valid": self.valid,
            "findings": [asdict(finding) for finding in self.findings],
            "window": asdict(self.window),
            "figures": self.figures,
            "adapters": self.adapters,
            "fairness": self.fairness,
            "timeline": self.timeline,
            "schedule_sha256": self.schedule_digest,
            "client": self.client,
            "server": self.server,
            "stages": self.stages,
            "swaps": [asdict(verb) for verb in self.swaps],
        }


def run_load(
    name: str,
    target: Target,
    schedule: Schedule,
    prompts: PromptSource,
    plan: RunPlan,
    slo: Slo,
    *,
    progress: Callable[[dict[str, float]], None] = lambda _: None,
    beside: Beside | None = None,
) -> RunResult:
    """Send a schedule and measure; `beside` changes adapters meanwhile.

    Raises GeneratorFailedError, NothingMeasuredError.
    """
    with tempfile.TemporaryDirectory(prefix="hotswap-load-") as folder:
        orders = [
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
                records_path=Path(folder) / f"records-{index}.jsonl",
                key=plan.key,
                web_port=plan.web_port if index == 0 else None,
                keep_alive=plan.keep_alive,
                tail_seconds=plan.tail_seconds,
            )
            for index in range(plan.workers)
        ]
        limit = _READY_SECONDS + plan.window.end + plan.timeout_seconds + _GRACE_SECONDS
        scraper = Scraper(
            target.url, plan.window, wanted=WANTED, key=plan.key, every=plan.metrics_every_seconds
        )
        uses: list[MachineTime | None] = []

        @contextlib.contextmanager
        def watched(start_at: float) -> Iterator[Sequence[Verb]]:
            uses.append(read_use(target.url))
            with scraper.reading(start_at), (beside or _nothing)(start_at) as verbs:
                yield verbs
            uses.append(read_use(target.url))

        outcomes, verbs = _send(orders, Path(folder), limit, progress, watched)
        records = [
            Record.from_dict(json.loads(line))
            for order in orders
            for line in order.records_path.read_text(encoding="utf-8").splitlines()
        ]
    records.sort(key=lambda record: (record.scheduled_seconds, record.number))
    server = server_figures(scraper.scrapes, scraper.reason)
    before, after = uses
    share = round(before.foreign_share(after), 4) if before is not None and after is not None else None
    return measure(name, records, schedule, plan, slo, outcomes, verbs, server, share)


def measure(
    name: str,
    records: list[Record],
    schedule: Schedule,
    plan: RunPlan,
    slo: Slo,
    outcomes: Sequence[Outcome],
    verbs: Sequence[Verb] = (),
    server: Mapping[str, Any] = MappingProxyType({}),
    foreign_cpu_share: float | None = None,
) -> RunResult:
    """The figures of raw records. Raises NothingMeasuredError when not one request was answered."""
    window = plan.window
    mark(records, verbs)
    figures = run_figures(records, window, slo)
    if not figures["counts"]["ok"]:
        failures = figures["failures"] or {"nothing was sent within the window": 0}
        reasons = "; ".join(f"{count} x {reason}" for reason, count in failures.items())
        raise NothingMeasuredError(
            f"{name}: none of {figures['counts']['measured']} requests was answered in full: {reasons}"
        )
    stages = stage_split(records, window, server)
    figures["overhead_seconds"] = stages["overhead_seconds"] if stages is not None else None
    by_adapter = adapter_figures(records, window, slo)
    return RunResult(
        name=name,
        records=records,
        window=window,
        figures=figures,
        adapters=by_adapter,
        fairness=fairness(by_adapter),
        findings=findings(
            figures,
            records,
            window,
            closed=schedule.closed_workers is not None,
            late_for_a_sender=sum(outcome.late_for_a_sender for outcome in outcomes),
            foreign_cpu_share=foreign_cpu_share,
        ),
        timeline=timeline(records, window.end),
        schedule_digest=schedule.digest,
        client={
            "workers": len(outcomes),
            "sent": sum(outcome.sent for outcome in outcomes),
            "cpu_share": round(
                sum(o.cpu_seconds for o in outcomes) / max(1e-9, max(o.seconds for o in outcomes)), 3
            ),
            "foreign_cpu_share": foreign_cpu_share,  # of the machine, used by neither client nor server
        },
        server=dict(server),
        stages=stages,
        swaps=list(verbs),
    )


def _nothing(_: float) -> AbstractContextManager[Sequence[Verb]]:
    return contextlib.nullcontext(())


def _send(
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
