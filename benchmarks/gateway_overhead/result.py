"""The result of a run as one JSON document. `SCHEMA` changes when a field changes its meaning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.closed_loop.block import Block
from benchmarks.closed_loop.comparison import Cell, Comparison, cell, compare, group
from benchmarks.closed_loop.part import Contender, Part
from benchmarks.closed_loop.plan import Plan
from benchmarks.gateway_overhead.targets import throughput_met, ttft_met
from benchmarks.surroundings import Surroundings

SCHEMA = "hotswap.gateway_overhead/1"


@dataclass(frozen=True, slots=True)
class PartResult:
    """Everything that one part gave."""

    part: Part
    plan: Plan
    blocks: Sequence[Block]

    @property
    def cells(self) -> list[Cell]:
        """One per contender and concurrency."""
        return [cell(blocks) for blocks in group(self.blocks).values()]

    @property
    def comparisons(self) -> list[Comparison]:
        """Each contender but the baseline, at each concurrency that both were measured at."""
        groups = group(self.blocks)
        return [
            compare(blocks, groups[self.part.baseline, concurrency])
            for (contender, concurrency), blocks in groups.items()
            if contender != self.part.baseline and (self.part.baseline, concurrency) in groups
        ]

    def contender(self, name: str) -> Contender:
        """The contender of that name."""
        return next(each for each in self.part.contenders if each.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, for JSON."""
        part = self.part
        return {
            "name": part.name,
            "title": part.title,
            "baseline": part.baseline,
            "servers_up_together": part.together,
            "plan": asdict(self.plan),
            "servers": {spec.name: spec.shown() for spec in part.servers},
            "engine_settings": dict(part.settings),
            "contenders": [asdict(contender) for contender in part.contenders],
            "cells": [asdict(each) for each in self.cells],
            "comparisons": [
                {**asdict(each), "throughput_met": throughput_met(each), "ttft_met": ttft_met(each)}
                for each in self.comparisons
            ],
            "blocks": [block.to_dict() for block in self.blocks],
        }


@dataclass(frozen=True, slots=True)
class RunResult:
    """A whole run."""

    started: datetime
    command: str
    surroundings: Surroundings
    parts: Sequence[PartResult]

    @property
    def failed_requests(self) -> int:
        """Measured requests that were not answered in full."""
        return sum(block.attempted - block.answered for part in self.parts for block in part.blocks)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, for JSON."""
        return {
            "schema": SCHEMA,
            "started": self.started.isoformat(timespec="seconds"),
            "command": self.command,
            "surroundings": asdict(self.surroundings),
            "failed_requests": self.failed_requests,
            "parts": [part.to_dict() for part in self.parts],
        }

    def write(self, path: Path) -> None:
        """Write the document."""
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
