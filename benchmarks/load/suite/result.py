"""What a suite leaves: one JSON file with a measurement for each part, and all raw requests beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load.errors import ResultFileError
from benchmarks.load.figures.figures import DEFINITIONS
from benchmarks.load.result_file import RECORDS_NAME, RESULT_NAME, Measurement, read_measurement
from benchmarks.load.run import RunResult

SUITE_SCHEMA = "hotswap-bench-suite/1"


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """Parts that were measured one after the other on one gateway."""

    command: str
    created_at: str
    minutes: float  # that it was given
    seconds: float  # that it took
    gateway: Mapping[str, Any]  # `base`, `flags`, `ranks` by adapter
    load: Mapping[str, Any]  # options of all parts, as they were given
    capacity_req_s: float | None
    slo: Mapping[str, Any]
    surroundings: Mapping[str, Any]
    parts: Mapping[str, Measurement]  # by key, in order
    left_out: Mapping[str, str]  # key -> why

    @property
    def partial(self) -> bool:
        """Whether a part is missing that was asked for."""
        return bool(self.left_out)

    def to_dict(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "schema": SUITE_SCHEMA,
            "partial": self.partial,
            **asdict(self),
            "definitions": DEFINITIONS,
        }


def write_suite(result: SuiteResult, runs: Mapping[str, Sequence[RunResult]], folder: Path) -> None:
    """`result.json` and `requests.jsonl` in `folder`; each request names its part and run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / RECORDS_NAME).open("w", encoding="utf-8") as out:
        for key, of_part in runs.items():
            for run in of_part:
                for record in run.records:
                    out.write(json.dumps({"part": key, "run": run.name, **record.to_dict()}) + "\n")
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False)
    (folder / RESULT_NAME).write_text(text + "\n", encoding="utf-8")


def read_comparable(path: Path) -> Measurement:
    """A measurement from its file or folder; a suite becomes one whose runs are called `PART: RUN`.

    Raises ResultFileError.
    """
    if path.is_dir():
        path = path / RESULT_NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultFileError(f"{str(path)!r} holds no result of a load run: {error}") from None
    if not isinstance(fields, dict) or fields.get("schema") != SUITE_SCHEMA:
        return read_measurement(path)
    try:
        return _as_one(fields)
    except (KeyError, TypeError) as error:
        raise ResultFileError(f"{str(path)!r} is not whole: {error}") from None


def _as_one(fields: Mapping[str, Any]) -> Measurement:
    runs = []
    for key, part in fields["parts"].items():
        runs += [{**run, "name": f"{key}: {run['name']}"} for run in part["runs"]]
        cost = part["conclusion"].get("idle")
        if cost is not None:  # it has no run, but figures
            runs.append({"name": f"{key}: nobody asks", "valid": True, "figures": {"idle": cost}})
    target = next(iter(fields["parts"].values()))["target"] if fields["parts"] else {}
    return Measurement(
        mode="suite",
        command=fields["command"],
        target=target,
        load={
            **fields["load"],
            "minutes": fields["minutes"],
            "capacity_req_s": fields["capacity_req_s"],
            "ranks": fields["gateway"]["ranks"],
            "flags": fields["gateway"]["flags"],
        },
        slo=fields["slo"],
        surroundings=fields["surroundings"],
        runs=runs,
        created_at=fields["created_at"],
        conclusion={},
    )
