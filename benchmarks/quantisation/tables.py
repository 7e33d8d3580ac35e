"""All tables of the report in order, the same for Markdown and HTML."""

from __future__ import annotations

from benchmarks.quantisation.base_tables import disk_table, quality_table, recovery_table
from benchmarks.quantisation.machine_tables import (
    adapter_table,
    capital_table,
    equality_table,
    memory_table,
    speed_table,
    task_table,
    tutorial_table,
    verdict_table,
)
from benchmarks.quantisation.report import Report
from benchmarks.quantisation.table import Table


def report_tables(report: Report) -> list[Table]:
    """Every table that has a row: the base's own first, then those of each machine."""
    found = [disk_table(report), quality_table(report), recovery_table(report)]
    for label, figures in report.machines.items():
        where = f" ({label})" if len(report.machines) > 1 else ""
        found += [
            verdict_table(report, figures, where),
            memory_table(figures, where),
            speed_table(figures, where),
            task_table(report, figures, where),
            adapter_table(report, figures, where),
            equality_table(figures, where),
            capital_table(figures, where),
            tutorial_table(report, figures, where),
        ]
    return [table for table in found if table.rows]
