"""The parts of a report, one after another, each going on where an earlier run stopped."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from benchmarks.quantisation.bench import MACHINES, Bench
from benchmarks.quantisation.errors import RecordError
from benchmarks.quantisation.figures import Made
from benchmarks.quantisation.fleet import Say
from benchmarks.quantisation.plan import ReportPlan
from benchmarks.quantisation.record import Record
from benchmarks.quantisation.report import MachineFigures, Report
from quantize.quality.figures import QualityFigures

SERVER_PARTS = frozenset({"memory", "task", "equality", "speed"})


def run_report(plan: ReportPlan, *, command: str, say: Say) -> Report:
    """Measure what is missing and put everything together that was recorded, of all machines.

    Raises HotswapError with what went wrong; what was measured until then stays recorded.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    made = _find_made(plan, say)
    if "quality" in plan.parts:
        from benchmarks.quantisation.quality import measure_merged as measure_merged_quality
        from benchmarks.quantisation.quality import measure_recovery

        record = Record(plan.out / "quality.json", QualityFigures)
        measure_merged_quality(made, plan, record, say=say)
        measure_recovery(made, plan, record, say=say)
    if SERVER_PARTS & set(plan.parts):
        from benchmarks.quantisation.merged import measure_merged
        from benchmarks.quantisation.plain import measure_plain

        bench = Bench(plan, say)
        measure_merged(bench, made)
        measure_plain(bench, made)
    return assemble(plan, made, command=command)


def assemble(plan: ReportPlan, made: Made, *, command: str) -> Report:
    """The report of everything that is recorded. Raises RecordError for records that cannot be read."""
    from benchmarks.quantisation.texts import TITLES

    quality = Record(plan.out / "quality.json", QualityFigures).all()
    texts = {key.rpartition("/")[2] for key in quality}
    return Report(
        created=datetime.now(UTC).isoformat(timespec="minutes"),
        command=command,
        quick=plan.quick,
        base=made.plain[0].name,
        made=made,
        texts={name: title for name, title in TITLES.items() if name in texts},
        quality=quality,
        machines=_machines(plan),
        notes=made.notes,
    )


def _find_made(plan: ReportPlan, say: Say) -> Made:
    from benchmarks.quantisation.made import Maker

    record = Record(plan.out / "made.json", Made)
    before = record.get("made")
    if plan.parts == ("report",):
        if before is None:
            raise RecordError(f"{plan.out} holds nothing to report on; measure first, or name another --out")
        return before
    made = Maker(plan, before, say).make(may_make="make" in plan.parts)
    return record.put("made", f"{plan.base} {plan.adapter}", made)


def _machines(plan: ReportPlan) -> dict[str, MachineFigures]:
    found = {}
    for folder in sorted((plan.out / MACHINES).glob("*/machine.json")):
        label = folder.parent.name
        bench = Bench(replace(plan, label=label), lambda _: None)
        machine = bench.machine.get("machine")
        if machine is not None:
            found[label] = MachineFigures(
                machine=machine,
                memory=tuple(bench.memory.all().values()),
                capital=tuple(bench.capital.all().values()),
                task=tuple(bench.task.all().values()),
                equality=tuple(bench.equality.all().values()),
                speed=bench.speed.get("speed"),
            )
    return found
