"""The tables of a suite's report: one line for each run, what arms cost, the conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.load.report.arm_tables import arm_tables
from benchmarks.load.report.server_tables import stages_table
from benchmarks.load.report.swap_tables import changes_table
from benchmarks.load.report.table import Table
from benchmarks.load.report.tables import machine_rows
from benchmarks.load.result_file import Measurement
from benchmarks.load.suite.headlines import Headline, name_of
from benchmarks.load.suite.parts import BY_KEY
from benchmarks.load.suite.result import SuiteResult

_GIB = 1024**3


def headlines_of(result: SuiteResult) -> list[Headline]:
    """Of all parts, in their order."""
    return [one for key, measurement in result.parts.items() for one in BY_KEY[key].headlines(measurement)]


def headline_table(result: SuiteResult) -> Table:
    """The same as rows."""
    rows = [
        (BY_KEY[key].title, value, text)
        for key, measurement in result.parts.items()
        for value, text in BY_KEY[key].headlines(measurement)
    ]
    return Table("Summary", ("part", "value", "what"), tuple(rows))


def part_tables(measurement: Measurement) -> list[Table]:
    """Everything that one part shows in rows."""
    tables = [_runs(measurement)] if measurement.runs else []
    if "arms" in measurement.conclusion:
        tables += [table for table in arm_tables(measurement.conclusion) if table.title.startswith("Ratio")]
    if "stages" in BY_KEY[measurement.mode].plots and (stages := stages_table(measurement.runs)) is not None:
        tables.append(stages)
    if (changes := changes_table(measurement.runs)) is not None:
        tables.append(changes)
    if "idle" in measurement.conclusion:
        tables.append(_idle(measurement.conclusion["idle"]))
    return tables


def missing_lines(result: SuiteResult) -> list[str]:
    """A sentence for each part that was left out."""
    return [f"Partial: {BY_KEY[key].title!r} is missing: {why}" for key, why in result.left_out.items()]


def conditions_table(result: SuiteResult) -> Table:
    """What the figures depend on."""
    ranks: Mapping[str, int] = result.gateway["ranks"]
    slo = result.slo
    rows = [
        ("command", result.command),
        ("when", f"{result.created_at}, {result.seconds / 60:.1f} of {result.minutes:g} minutes"),
        ("base", str(result.gateway["base"])),
        ("adapters", f"{len(ranks)}, random numbers, of rank {', '.join(map(str, ranks.values()))}"),
        ("flags of hotswap serve", " ".join(result.gateway["flags"]) or "none"),
        (
            "limits (SLO)",
            f"{slo['name']}: TTFT {1000 * slo['ttft_seconds']:g} ms, TPOT {1000 * slo['tpot_seconds']:g} ms",
        ),
        ("capacity", "-" if result.capacity_req_s is None else f"{result.capacity_req_s:.2f} req/s"),
    ]
    rows += [(key, str(value)) for key, value in result.load.items() if value not in (None, "", [], False, 0)]
    load_average = result.surroundings["load_average"]
    rows += machine_rows(result.surroundings)
    rows.append(("load average before", f"{load_average:.2f}"))
    return Table("Conditions", ("what", "value"), tuple(rows))


def _runs(measurement: Measurement) -> Table:
    rows = []
    for run in measurement.runs:
        figures, counts = run["figures"], run["figures"]["counts"]
        ttft, tpot = figures["ttft_seconds"] or {}, figures["tpot_seconds"] or {}
        rows.append(
            (
                name_of(run) + ("" if run["valid"] else " (INVALID)"),
                f"{figures['offered_req_s']:.2f}",
                f"{figures['req_s']:.2f}",
                f"{figures['output_tok_s']:.1f}",
                f"{figures['goodput_req_s']:.2f}",
                f"{figures['slo_attainment']:.0%}",
                _ms(ttft.get("p50")),
                _ms(ttft.get("p99")),
                _ms(tpot.get("p50")),
                str(counts["ok"]),
                str(counts["rejected"]),
                str(counts["failed"]),
            )
        )
    headings = (
        "run",
        "offered req/s",
        "req/s",
        "tok/s",
        "goodput",
        "within SLO",
        "TTFT p50, ms",
        "p99",
        "TPOT p50, ms",
        "ok",
        "refused",
        "failed",
    )
    seconds = measurement.load["seconds"]
    return Table("Runs", headings, tuple(rows), (f"Measured {seconds:g} s each.",))


def _idle(cost: Mapping[str, Any]) -> Table:
    rows = (
        ("processors, all processes", f"{cost['cpu_share']:.2%} of a core"),
        ("processor, the one that speaks HTTP", f"{cost['http_cpu_share']:.2%} of a core"),
        ("memory, what processes share counted once", f"{cost['memory_bytes'] / _GIB:.2f} GiB"),
    )
    return Table("Cost", ("what", "value"), rows, (f"Over {cost['seconds']:.0f} s.",))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"
