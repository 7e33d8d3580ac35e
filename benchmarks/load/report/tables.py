"""The tables of a report, in words: the same for the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.load.comparison import Difference
from benchmarks.load.report.arm_tables import arm_tables
from benchmarks.load.report.overload_tables import overload_table
from benchmarks.load.report.server_tables import server_tables
from benchmarks.load.report.swap_tables import changes_table
from benchmarks.load.report.table import Table
from benchmarks.load.result_file import Measurement

# Runs that are named where something speaks against many of them.
MOST_NAMES = 4

_FEW_FOR_P99 = 1000


def headline_tables(measurement: Measurement) -> list[Table]:
    """What the terminal shows: a comparison where arms took turns, else throughput and latency of each run."""
    changes = changes_table(measurement.runs)
    last = [changes] if changes is not None else []
    if "arms" in measurement.conclusion:
        return [*arm_tables(measurement.conclusion), *last]
    if "capacity_req_s" in measurement.conclusion:
        last.append(overload_table(measurement.conclusion, measurement.runs))
    return [_throughput(measurement), _latency(measurement), *last]


def report_tables(measurement: Measurement) -> list[Table]:
    """Everything that is shown in rows."""
    tables = arm_tables(measurement.conclusion) if "arms" in measurement.conclusion else []
    if "capacity_req_s" in measurement.conclusion:
        tables.append(overload_table(measurement.conclusion, measurement.runs))
    tables += [_throughput(measurement), _latency(measurement), *server_tables(measurement.runs)]
    if (changes := changes_table(measurement.runs)) is not None:
        tables.append(changes)
    if any(run["figures"]["failures"] for run in measurement.runs):
        tables.append(_failures(measurement))
    with_adapters = (run for run in measurement.runs if set(run["adapters"]) != {"base"})
    tables.extend(_adapters(run) for run in with_adapters)
    tables += [_conditions(measurement), definitions_table()]
    return tables


def findings_of(
    measurement: Measurement, name_of: Callable[[Mapping[str, Any]], str] = lambda run: str(run["name"])
) -> list[tuple[bool, str]]:
    """(whether runs do not count, what speaks against them): a line for each kind, with one run's words for it."""
    kinds: dict[tuple[bool, str], list[tuple[str, str]]] = {}
    for run in measurement.runs:
        for finding in run["findings"]:
            kind = (finding["invalid"], finding["code"])
            kinds.setdefault(kind, []).append((name_of(run), finding["message"]))
    if len(measurement.runs) == 1:
        return [(invalid, runs[0][1]) for (invalid, _), runs in kinds.items()]
    found = []
    for (invalid, _), runs in sorted(kinds.items(), key=lambda kind: not kind[0][0]):
        names = "; ".join(name for name, _ in runs[:MOST_NAMES])
        if len(runs) > MOST_NAMES:
            names += f" and {len(runs) - MOST_NAMES} more of {len(measurement.runs)} runs"
        found.append((invalid, f"{names}: {'e.g. ' if len(runs) > 1 else ''}{runs[0][1]}"))
    return found


def comparison_table(differences: Sequence[Difference]) -> Table:
    """Two results side by side."""
    rows = tuple(
        (
            one.run,
            one.metric,
            _plain(one.first),
            _plain(one.second),
            "-" if one.change is None else f"{one.change:+.1%}",
            _judged(one),
        )
        for one in differences
    )
    return Table("Comparison", ("run", "metric", "first", "second", "change", ""), rows)


def _judged(one: Difference) -> str:
    if one.change is None or abs(one.change) < 0.005:
        return ""
    return "better" if (one.change > 0) == one.more_is_better else "worse"


def _throughput(measurement: Measurement) -> Table:
    unloaded = any(run["figures"]["counts"].get("unloaded") for run in measurement.runs)
    rows = []
    for run in measurement.runs:
        figures, counts = run["figures"], run["figures"]["counts"]
        rows.append(
            (
                run["name"] + ("" if run["valid"] else " (INVALID)"),
                f"{figures['offered_req_s']:.2f}",
                f"{figures['req_s']:.2f}",
                f"{figures['output_tok_s']:.1f}",
                f"{figures['goodput_req_s']:.2f}",
                f"{figures['slo_attainment']:.1%}",
                str(counts["measured"]),
                str(counts["ok"]),
                str(counts["rejected"]),
                str(counts["failed"]),
                *([str(counts.get("unloaded", 0))] if unloaded else []),
            )
        )
    slo = measurement.slo
    limits = f"SLO {slo['name']}: TTFT {_ms(slo['ttft_seconds'])}, TPOT {_ms(slo['tpot_seconds'])}"
    headings = (
        "run",
        "offered req/s",
        "req/s",
        "tok/s",
        "goodput req/s",
        "SLO attained",
        "measured",
        "ok",
        "rejected",
        "failed",
        *(["unloaded"] if unloaded else []),
    )
    return Table("Throughput", headings, tuple(rows), (limits,))


def _latency(measurement: Measurement) -> Table:
    rows = []
    few = False
    for run in measurement.runs:
        for label, name in (
            ("TTFT", "ttft_seconds"),
            ("TTFT from sending", "ttft_sent_seconds"),
            ("TTFT, cold", "cold_ttft_seconds"),
            ("TTFT, warm", "warm_ttft_seconds"),
            ("TPOT", "tpot_seconds"),
            ("ICL", "icl_seconds"),
            ("E2E", "e2e_seconds"),
            ("rejection", "rejection_seconds"),
        ):
            found = run["figures"].get(name)
            if found is None:
                continue
            sure = found["n"] >= _FEW_FOR_P99
            few = few or not sure
            low, high = found["p50_interval"]
            rows.append(
                (
                    run["name"],
                    label,
                    _ms(found["p50"]),
                    f"{_ms(low)} to {_ms(high)}",
                    _ms(found["p90"]),
                    _ms(found["p99"]) + ("" if sure else " *"),
                    _ms(found["max"]),
                    str(found["n"]),
                )
            )
    note = (f"* of fewer than {_FEW_FOR_P99} values: near the slowest one",) if few else ()
    headings = ("run", "ms", "p50", "95 % interval", "p90", "p99", "max", "n")
    return Table("Latency, milliseconds", headings, tuple(rows), note)


def _failures(measurement: Measurement) -> Table:
    """Rejections and cancellations are told apart from what failed by their first word."""
    rows = tuple(
        (run["name"], *reason.partition(": ")[::2], str(count))
        for run in measurement.runs
        for reason, count in sorted(run["figures"]["failures"].items(), key=lambda item: -item[1])
    )
    return Table("Requests without a whole answer", ("run", "outcome", "code", "requests"), rows)


def _adapters(run: Mapping[str, Any]) -> Table:
    cold = any(fields.get("cold_ttft_seconds") for fields in run["adapters"].values())
    rows = tuple(
        (
            name,
            str(fields["measured"]),
            str(fields["ok"]),
            _ms((fields["ttft_seconds"] or {}).get("p50")),
            _ms((fields["ttft_seconds"] or {}).get("p99")),
            *(_cold_cells(fields) if cold else ()),
            _ms((fields["tpot_seconds"] or {}).get("p50")),
            f"{fields['slo_attainment']:.1%}",
        )
        for name, fields in run["adapters"].items()
    )
    notes = (f"Fairness (Jain): {run['fairness']:.3f}",) if run["fairness"] is not None else ()
    more = ("cold n", "cold TTFT p50", "warm TTFT p50") if cold else ()
    headings = ("adapter", "measured", "ok", "TTFT p50", "TTFT p99", *more, "TPOT p50", "SLO attained")
    return Table(f"By adapter: {run['name']}", headings, rows, notes)


def _cold_cells(fields: Mapping[str, Any]) -> tuple[str, str, str]:
    found, warm = fields["cold_ttft_seconds"] or {}, fields["warm_ttft_seconds"] or {}
    return str(found.get("n", 0)), _ms(found.get("p50")), _ms(warm.get("p50"))


def _conditions(measurement: Measurement) -> Table:
    around = measurement.surroundings
    rows = [("command", measurement.command), ("when", measurement.created_at)]
    rows += [
        (name, str(value)) for name, value in measurement.load.items() if value not in (None, "", [], False)
    ]
    rows.append(
        ("base", f"{measurement.target['base']}, context {measurement.target['context_tokens']} tokens")
    )
    rows += machine_rows(around)
    for run in measurement.runs:
        client = run["client"]
        share = f"{client['workers']} processes, {client['cpu_share']:.0%} of a core"
        rows.append((f"client of {run['name']}", f"{share}; schedule {run['schedule_sha256'][:12]}"))
    return Table("Conditions", ("what", "value"), tuple(rows))


def machine_rows(surroundings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of what a figure depends on besides the load."""
    packages = ", ".join(f"{name} {version}" for name, version in surroundings["packages"].items())
    cores, memory = surroundings["cores"], surroundings["memory_gib"]
    return [
        ("machine", f"{surroundings['processor']}, {cores} cores, {memory:.0f} GiB"),
        ("software", packages),
        ("commit", str(surroundings["commit"])),
    ]


def definitions_table() -> Table:
    """What every word of a report means."""
    from benchmarks.load.figures.figures import DEFINITIONS

    return Table("Words", ("word", "meaning"), tuple(DEFINITIONS.items()))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
