"""One trial: a load, a signal to the engine's process, and what follows."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.engine_kill.outcome import Outcome, outcome_of
from benchmarks.engine_kill.plan import Plan
from benchmarks.engine_kill.readiness import Readiness
from benchmarks.errors import BenchmarkError
from benchmarks.server import Server
from benchmarks.steady.client import Order
from benchmarks.steady.load import START_SECONDS, Load

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
    """Kill the engine's process, or stop it for `stop_seconds`. Raises BenchmarkError, ClientFailedError."""
    with httpx.Client(base_url=server.url, timeout=plan.request_timeout_seconds) as client:
        versions, answers, retried = _live(client), _ask(client, plan.names), _retried(client)
        core = engine_core(server)
        order = Order(
            url=server.url,
            lanes=plan.lanes,
            start_at_seconds=time.monotonic() + START_SECONDS,
            seconds=plan.before_seconds + stop_seconds + plan.after_seconds,
            prompt_words=plan.prompt_words,
            max_tokens=plan.max_tokens,
            seed=f"{plan.seed}/{name}",
            request_timeout_seconds=plan.request_timeout_seconds,
            refused_seconds=plan.refused_seconds,
        )
        with Load(order, folder, f"requests-{name}") as load, Readiness(server.url) as readiness:
            time.sleep(max(0.0, plan.before_seconds - load.now_seconds))
            load.check()
            struck = time.monotonic()
            core.send_signal(signal.SIGSTOP if stop_seconds else signal.SIGKILL)
            back = struck
            if stop_seconds:
                time.sleep(stop_seconds)
                back = time.monotonic()
                core.send_signal(signal.SIGCONT)
            off, why = readiness.wait(False, after_seconds=struck, limit_seconds=plan.back_seconds)
            ready, _ = readiness.wait(True, after_seconds=max(off, back), limit_seconds=plan.back_seconds)
            records = load.wait()
        return Trial(
            what="SIGSTOP" if stop_seconds else "kill -9",
            off_seconds=off - struck,
            why=why,
            ready_seconds=ready - back,
            retried=_retried(client) - retried,
            same_versions=_live(client) == versions,
            same_answers=_ask(client, plan.names) == answers,
            same_process=engine_core(server).pid == core.pid,
            outcome=outcome_of(records, versions, struck_seconds=struck - order.start_at_seconds),
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
