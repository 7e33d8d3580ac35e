"""One run: everything that came back, and the figures that follow from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from benchmarks.load.client.record import Record
from benchmarks.load.client.sending import Beside, RunPlan, Sent, send
from benchmarks.load.client.target import Target
from benchmarks.load.errors import NothingMeasuredError
from benchmarks.load.figures.disturbance import read_use
from benchmarks.load.figures.figures import adapter_figures, fairness, run_figures, timeline
from benchmarks.load.figures.marks import mark
from benchmarks.load.figures.scraper import Scraper
from benchmarks.load.figures.server_metrics import WANTED, server_figures
from benchmarks.load.figures.slo import Slo
from benchmarks.load.figures.stages import stage_split
from benchmarks.load.figures.validity import Finding, findings
from benchmarks.load.verbs import Verb
from benchmarks.load.window import Window
from benchmarks.load.workload.prompt_source import PromptSource
from benchmarks.load.workload.schedule import Schedule
from benchmarks.machine_time import MachineTime


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
    scraper = Scraper(target.url, plan.window, wanted=WANTED, key=plan.key, every=plan.metrics_every_seconds)
    uses: list[MachineTime | None] = []

    @contextlib.contextmanager
    def watched(start_at: float) -> Iterator[Sequence[Verb]]:
        uses.append(read_use(target.url))
        with contextlib.ExitStack() as stack:
            stack.enter_context(scraper.reading(start_at))
            yield stack.enter_context(beside(start_at)) if beside is not None else ()
        uses.append(read_use(target.url))

    sent = send(target, schedule, prompts, plan, progress=progress, beside=watched)
    server = server_figures(scraper.scrapes, scraper.reason)
    before, after = uses
    share = round(before.foreign_share(after), 4) if before is not None and after is not None else None
    return measure(name, sent, schedule, slo, server, share)


def measure(
    name: str,
    sent: Sent,
    schedule: Schedule,
    slo: Slo,
    server: Mapping[str, Any] = MappingProxyType({}),
    foreign_cpu_share: float | None = None,
) -> RunResult:
    """The figures of raw records. Raises NothingMeasuredError when not one request was answered."""
    records, outcomes, window, verbs = sent.records, sent.outcomes, sent.window, sent.verbs
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
