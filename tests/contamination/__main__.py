"""`python -m tests.contamination --minutes 60 [--engine vllm|scripted] [--clients N] [--kills N]
[--seed N] [--report FILE]`.

Says after each minute what it has found so far. Ends with 0 when there was no fault, with 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.contamination.report import Report
from tests.contamination.run import Plan, contaminate
from tests.contamination.servers import live_server, scripted_server

KEPT = Path(__file__).resolve().parents[2] / ".pytest_cache" / "d" / "hotswap-adapters"


async def _run(engine: str, plan: Plan) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = scripted_server(home) if engine == "scripted" else live_server(home, KEPT)
        async with server as ready:
            return await contaminate(ready, plan, tell=_say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Run and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.contamination", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--engine", choices=("vllm", "scripted"), default="vllm")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kills", type=int, default=1, help="of the engine, a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="write the report there as JSON, too")
    given = parser.parse_args()
    plan = Plan(given.minutes * 60, num_clients=given.clients, seed=given.seed, kills_each_round=given.kills)
    report = asyncio.run(_run(given.engine, plan))
    if given.report is not None:
        given.report.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    print(report.text())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
