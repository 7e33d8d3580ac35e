"""The file that a measurement writes: JSON with a version, and the raw requests beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.load.client.record import write_records
from benchmarks.load.client.target import Target
from benchmarks.load.errors import ResultFileError
from benchmarks.load.figures.figures import DEFINITIONS
from benchmarks.load.figures.slo import Slo
from benchmarks.load.run import RunResult
from benchmarks.surroundings import Surroundings

SCHEMA = "hotswap-bench/1"
RESULT_NAME = "result.json"
RECORDS_NAME = "requests.jsonl"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One or more runs against one server, and everything that they depend on."""

    mode: str  # the subcommand: run, sweep, search, ...
    command: str
    target: Mapping[str, Any]
    load: Mapping[str, Any]  # the options, as they were given
    slo: Mapping[str, Any]
    surroundings: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]  # RunResult.to_dict
    created_at: str
    conclusion: Mapping[
        str, Any
    ]  # a search: the highest rate; arms that took turns: `baseline`, `arms`, `targets`; else empty

    def to_dict(self) -> dict[str, Any]:
        """As it is written."""
        return {"schema": SCHEMA, **asdict(self), "definitions": DEFINITIONS}


def measurement_of(
    mode: str,
    runs: Sequence[RunResult],
    *,
    command: str,
    target: Target,
    load: Mapping[str, Any],
    slo: Slo,
    surroundings: Surroundings,
    conclusion: Mapping[str, Any] | None = None,
) -> Measurement:
    """Put together what was measured now."""
    return Measurement(
        mode=mode,
        command=command,
        target=target.shown(),
        load=dict(load),
        slo=slo.shown(),
        surroundings=asdict(surroundings),
        runs=[run.to_dict() for run in runs],
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        conclusion=dict(conclusion or {}),
    )


def write_measurement(measurement: Measurement, runs: Sequence[RunResult], folder: Path) -> None:
    """`result.json` and `requests.jsonl` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, run in enumerate(runs):
        write_records(folder / RECORDS_NAME, run.records, append=place > 0, run=run.name)
    text = json.dumps(measurement.to_dict(), indent=1, allow_nan=False)
    (folder / RESULT_NAME).write_text(text + "\n", encoding="utf-8")


def read_measurement(path: Path) -> Measurement:
    """The inverse; `path` is the file or its folder. Raises ResultFileError."""
    if path.is_dir():
        path = path / RESULT_NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultFileError(f"{str(path)!r} holds no result of a load run: {error}") from None
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:
        raise ResultFileError(f"{str(path)!r} has the schema {schema!r}; this version reads {SCHEMA!r}")
    fields.pop("schema")
    fields.pop("definitions", None)
    try:
        return Measurement(**fields)
    except TypeError as error:
        raise ResultFileError(f"{str(path)!r} is not whole: {error}") from None
