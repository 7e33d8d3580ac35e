"""One trial: a load, a signal to the engine's process, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.closed_loop import run_closed_loop
from benchmarks.engine_kill.outcome import Outcome, outcome_of
from benchmarks.engine_kill.plan import Plan
from benchmarks.engine_kill.strike import Strike
from benchmarks.errors import BenchmarkError
from benchmarks.server import Server

CORE_NAME = "EngineCore"
CHECK_PROMPT = "The letter that came this morning says"
CHECK_TOKENS = 24
_RETRIED = "hotswap_retried_requests_total"


@dataclass(frozen=True, slots=True)
class Trial:
    """What one signal to the engine did. Seconds count from the signal, or from the one that let it go on."""

    what: str  # "kill -9" or "SIGSTOP"
    off_seconds: float  # until /readyz said so
    why: str
    ready_seconds: float
    retried: int  # by the gateway's own count
    same_versions: bool
    same_answers: bool
    same_process: bool
    outcome: Outcome

    def shown(self) -> dict[str, Any]:
        """For results.json."""
        return asdict(self)


def engine_core(server: Server) -> psutil.Process:
    """The process that computes. Raises BenchmarkError."""
    for pid in server.process_ids():
        try:
            process = psutil.Process(pid)
            if CORE_NAME in " ".join(process.cmdline()):
                return process
        except psutil.NoSuchProcess:
            continue
    raise BenchmarkError(f"the gateway has no process that is called {CORE_NAME}")


def run_trial(server: Server, plan: Plan, folder: Path, *, name: str, stop_seconds: float = 0.0) -> Trial:
    """Kill the engine's process, or stop it for `stop_seconds`. Raises BenchmarkError."""
    with httpx.Client(base_url=server.url, timeout=plan.request_timeout_seconds) as client:
        versions, answers, retried = _live(client), _ask(client, plan.names), _retried(client)
        core = engine_core(server)
        strike = Strike(core, server.url, plan, stop_seconds)
        records = run_closed_loop(
            server.url,
            plan,
            plan.before_seconds + stop_seconds + plan.after_seconds,
            folder / f"requests-{name}.jsonl",
            beside=strike.running,
            salt=f"/{name}",
            refused_seconds=plan.refused_seconds,
        )
        result = strike.result
        return Trial(
            what="SIGSTOP" if stop_seconds else "kill -9",
            off_seconds=result.off_seconds,
            why=result.why,
            ready_seconds=result.ready_seconds,
            retried=_retried(client) - retried,
            same_versions=_live(client) == versions,
            same_answers=_ask(client, plan.names) == answers,
            same_process=engine_core(server).pid == core.pid,
            outcome=outcome_of(records, versions, struck_seconds=result.struck_seconds),
        )


def _live(client: httpx.Client) -> dict[str, str]:
    listed = client.get("/admin/adapters").raise_for_status().json()["adapters"]
    return {adapter["name"]: adapter["live"] for adapter in listed}


def _ask(client: httpx.Client, names: Sequence[str]) -> list[str]:
    """The same question to everybody, one after the other: greedy, so that the answers can be compared."""
    answers = []
    for who in (None, *names):
        body = {"prompt": CHECK_PROMPT, "adapter": who, "max_tokens": CHECK_TOKENS, "temperature": 0.0}
        answers.append(str(client.post("/generate", json=body).raise_for_status().json()["text"]))
    return answers


def _retried(client: httpx.Client) -> int:
    for line in client.get("/metrics").raise_for_status().text.splitlines():
        if line.startswith(_RETRIED):
            return int(float(line.rpartition(" ")[2]))
    return 0
