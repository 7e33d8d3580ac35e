"""What one generating process is told, and what it says when it is done: plain files, so that any process can."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load.client.wire import Dialect
from benchmarks.load.workload.prompt_source import PromptSource
from benchmarks.load.workload.schedule import Schedule

REFUSED_SECONDS = 0.05  # a closed loop does not hammer a server that refuses at once


@dataclass(frozen=True, slots=True)
class Order:
    """One process's share of a run. Seconds count from a start that all processes are told when all are ready."""

    url: str
    dialect: Dialect
    stream: bool
    model: str  # the server's name for the base
    schedule: Schedule
    prompts: PromptSource
    measure_from_seconds: float  # requests due from here on count
    measure_to_seconds: float
    timeout_seconds: float  # of one request without a byte
    max_in_flight: int  # of an open loop; a request that finds no free sender is late
    records_path: Path
    key: str | None = None
    web_port: int | None = None  # of Locust's web page; None: none
    tail_seconds: float | None = (
        None  # after the window requests are waited for so long; None: until they end
    )
    keep_alive: bool = True  # False: a connection for each request
    requests: int | None = None  # as in RunPlan; so are the next two
    out_of_step: bool = False
    refused_seconds: float = REFUSED_SECONDS

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        fields = asdict(self)
        fields["schedule"] = self.schedule.to_json()
        fields["records_path"] = str(self.records_path)
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> Order:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        fields["schedule"] = Schedule.from_json(fields["schedule"])
        fields["prompts"] = PromptSource(**{**fields["prompts"], "texts": tuple(fields["prompts"]["texts"])})
        fields["records_path"] = Path(fields["records_path"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a generating process says of itself."""

    sent: int
    late_for_a_sender: int  # requests that were due while every sender was busy
    cpu_seconds: float
    seconds: float
    window_start_seconds: float  # what was measured
    window_end_seconds: float
