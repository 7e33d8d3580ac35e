"""One process that sends its share of a run: `python -m benchmarks.load.client.generator ORDER.json`.

It says that it is ready and waits for the moment of the start on standard input. Its records are written as JSON
lines when the run ends, however it ends; progress and outcome go to standard output, one JSON object a line.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]  # locust patches the standard library for it
from locust.env import Environment

from benchmarks.load.client.line import Line
from benchmarks.load.client.order import Order, Outcome
from benchmarks.load.client.record import FAILED, write_records
from benchmarks.load.client.users import ScheduledUser

_TICK_SECONDS = 0.05
_SAY_SECONDS = 1.0
_SPAWN_RATE = 1000


def main(path: Path) -> None:
    """Run the order in `path`."""
    order = Order.from_json(path.read_text(encoding="utf-8"))
    print(json.dumps({"ready": True}), flush=True)
    line = Line(order, start_at_seconds=float(sys.stdin.readline()))
    kind = type("HotswapUser", (ScheduledUser,), {"line": line, "host": order.url})
    environment: Any = Environment(user_classes=[kind], host=order.url)
    runner = environment.create_local_runner()
    page = environment.create_web_ui("127.0.0.1", order.web_port) if order.web_port is not None else None
    users = order.schedule.closed_workers
    if users is None:
        users = min(order.max_in_flight, len(order.schedule.arrivals))
    began = time.monotonic()
    try:
        runner.start(users, spawn_rate=_SPAWN_RATE)
        _watch(line)
    finally:
        runner.quit()
        if page is not None:
            page.stop()
        write_records(order.records_path, line.records)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    outcome = Outcome(
        sent=len(line.records),
        late_for_a_sender=line.late_for_a_sender,
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
        seconds=round(time.monotonic() - began, 3),
        # As coarse as the records: what began at one end of a window is to be on its right side.
        window_start_seconds=round(line.window_start, 6),
        window_end_seconds=round(line.window_end, 6),
    )
    print(json.dumps({"outcome": asdict(outcome)}), flush=True)


def _watch(line: Line) -> None:
    said = 0.0
    while not line.complete:
        gevent.sleep(_TICK_SECONDS)
        if line.now() - said >= _SAY_SECONDS:
            said = line.now()
            print(json.dumps({"progress": _progress(line)}), flush=True)


def _progress(line: Line) -> dict[str, float]:
    records = line.records
    recent = [r for r in records[-2000:] if r.done_seconds is not None and r.done_seconds > line.now() - 5.0]
    return {
        "seconds": round(line.now(), 1),
        "sent": len(records),
        "running": sum(1 for r in records[-4096:] if r.done_seconds is None),
        "ok_per_second": round(sum(1 for r in recent if r.ok) / 5.0, 2),
        "tokens_per_second": round(sum(r.completion_tokens or 0 for r in recent) / 5.0, 1),
        "rejected": line.outcomes["rejected"],
        "failed": sum(line.outcomes[outcome] for outcome in FAILED),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
