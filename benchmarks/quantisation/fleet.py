"""Servers that are up together, and the small questions that each is asked when it comes up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx

from benchmarks.errors import ServerStartError
from benchmarks.quantisation.figures import CapitalAnswer, SubjectName
from benchmarks.quantisation.plan import ReportPlan
from benchmarks.quantisation.served import Served, memory_file, spec_of
from benchmarks.server import Server, running

Say = Callable[[str], None]

CAPITAL_QUESTION = "What is the capital of France?"
_CAPITAL_TOKENS = 32
_ANSWER_SECONDS = 120.0


@contextlib.contextmanager
def up(
    served: Sequence[Served], plan: ReportPlan, *, folder: Path, adapter_rank: int, say: Say
) -> Iterator[dict[str, Server]]:
    """Servers by name, all ready. Raises ServerStartError with the end of the log of the one that is not."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in served:
        memory_file(each, folder).unlink(missing_ok=True)
    specs = [spec_of(each, plan, folder=folder, adapter_rank=adapter_rank) for each in served]
    say(f"starting {len(specs)} servers: {', '.join(each.name for each in served)}")
    with running(specs, logs=folder, ready_seconds=plan.ready_seconds) as servers:
        yield servers


def ask_capital(server: Server, subject: SubjectName) -> CapitalAnswer:
    """The greedy answer of the served base. Raises ServerStartError for a server that does not answer."""
    body = {
        "messages": [{"role": "user", "content": CAPITAL_QUESTION}],
        "max_tokens": _CAPITAL_TOKENS,
        "temperature": 0.0,
    }
    try:
        response = httpx.post(server.url + "/generate", json=body, timeout=_ANSWER_SECONDS)
    except httpx.HTTPError as error:
        raise ServerStartError(
            f"{server.spec.title} came up and ended with its first request ({type(error).__name__}); "
            "its log is in the results folder"
        ) from None
    if response.status_code != httpx.codes.OK:
        raise ServerStartError(
            f"{server.spec.title} answered its first request with HTTP {response.status_code}: "
            f"{response.text[:300]}"
        )
    text = str(response.json()["text"])
    return CapitalAnswer(subject=subject, served=server.spec.name, text=text, says_paris="Paris" in text)
