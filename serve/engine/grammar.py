"""Compiles a schema or regex in a process that can be killed, before the engine sees it.

One pattern can take a compiler minutes, and the engine compiles inside the process that serves everybody
(GHSA-rwxx-mrjm-wc2m, CVE-2026-105757). What compiles here within the limit compiles there too; what does not is
the client's error.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict
from pathlib import Path

import orjson

from serve.engine.protocol import Constraint
from serve.errors import BusyError, GrammarError

logger = logging.getLogger("hotswap.grammar")

MAX_REMEMBERED = 256
MAX_WAITING = 32
MAX_NEWCOMERS = 8
_MAX_RETRY_SECONDS = 60
_START_SECONDS = 120.0
_PROJECT = Path(__file__).resolve().parents[2]


class _Job:
    """One constraint on its way through the compiler, and how many requests want to know."""

    def __init__(self, owner: str) -> None:
        self.owner = owner  # the tenant who asked first
        self.waiting = 0
        self.verdict: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()


class GrammarGuard:
    """Vets constraints. One compile at a time; verdicts are remembered, least recently used go.

    At most MAX_WAITING constraints wait, and MAX_NEWCOMERS more of tenants that have no other waiting. Tenants take
    turns. So one who sends slow ones neither keeps the others out nor waiting for long.
    """

    def __init__(self, *, enabled: bool, tokenizer_path: Path | None, compile_seconds: float) -> None:
        self._enabled = enabled
        self._tokenizer_path = tokenizer_path
        self._compile_seconds = compile_seconds
        self._lock = asyncio.Lock()  # of the process
        self._process: Process | None = None
        self._jobs: OrderedDict[Constraint, _Job] = OrderedDict()
        self._turns: dict[str, int] = {}  # of tenants whose constraints wait: when they last had a turn
        self._turn = 0
        self._runner: asyncio.Task[None] | None = None
        self._verdicts: OrderedDict[Constraint, str | None] = OrderedDict()

    async def check(self, constraint: Constraint | None, *, owner: str = "") -> None:
        """Vet a constraint of the tenant `owner`.

        Raises GrammarError when constraints are off, or this one cannot be compiled in time; BusyError."""
        if constraint is None:
            return
        if not self._enabled:
            raise GrammarError("structured outputs are switched off on this server", param="response_format")
        if self._tokenizer_path is None or constraint.kind == "json_object":
            return
        if constraint in self._verdicts:
            self._verdicts.move_to_end(constraint)
            reason = self._verdicts[constraint]
        else:
            reason = await self._wait(constraint, owner)
        if reason is not None:
            raise GrammarError(f"this {constraint.kind} cannot be used: {reason}", param="response_format")

    async def warm(self) -> bool:
        """Start the compiler process, so that the first constraint does not wait for it; False: none is needed."""
        if not self._enabled or self._tokenizer_path is None:
            return False
        async with self._lock:
            await self._worker()
        return True

    async def close(self) -> None:
        """End the compiler process."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner})
            self._drop_jobs()  # it may not even have begun
        async with self._lock:
            await self._kill()

    async def _wait(self, constraint: Constraint, owner: str) -> str | None:
        job = self._jobs.get(constraint)
        if job is None:
            is_newcomer = all(job.owner != owner for job in self._jobs.values())
            if len(self._jobs) >= MAX_WAITING + (MAX_NEWCOMERS if is_newcomer else 0):
                raise BusyError(
                    f"{len(self._jobs)} schemas and regexes wait to be compiled; send this one again",
                    retry_after_seconds=math.ceil(
                        min(_MAX_RETRY_SECONDS, MAX_WAITING * self._compile_seconds)
                    ),
                )
            job = self._jobs[constraint] = _Job(owner)
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run(), name="schema compiler")
        job.waiting += 1
        try:
            return await asyncio.shield(job.verdict)
        finally:
            job.waiting -= 1

    async def _run(self) -> None:
        """Compile what waits, each tenant's in order. What nobody waits for any more is left out."""
        try:
            while self._jobs:
                constraint, job = self._next()
                if job.waiting:
                    await self._decide(constraint, job)
                del self._jobs[constraint]
                if not job.verdict.done():
                    job.verdict.cancel()
                await self._ready_again()
        finally:
            self._drop_jobs()

    def _next(self) -> tuple[Constraint, _Job]:
        """The first of the tenant whose last turn is longest ago."""
        self._turns = {job.owner: self._turns.get(job.owner, 0) for job in self._jobs.values()}
        constraint, job = min(self._jobs.items(), key=lambda item: self._turns[item[1].owner])
        self._turn += 1
        self._turns[job.owner] = self._turn
        return constraint, job

    def _drop_jobs(self) -> None:
        for job in self._jobs.values():
            job.verdict.cancel()
        self._jobs.clear()

    async def _decide(self, constraint: Constraint, job: _Job) -> None:
        try:
            async with self._lock:
                reason = await self._compile(constraint)
        except (GrammarError, OSError, RuntimeError, TimeoutError) as error:
            logger.error("the schema compiler failed: %s", error)
            failed = GrammarError("the server's schema compiler does not start", param="response_format")
            job.verdict.set_exception(failed)
            job.verdict.exception()  # seen, even when the last who waited has gone
            return
        self._verdicts[constraint] = reason
        while len(self._verdicts) > MAX_REMEMBERED:
            self._verdicts.popitem(last=False)
        job.verdict.set_result(reason)

    async def _ready_again(self) -> None:
        """Start the next process at once where the last one was killed."""
        if self._process is None:
            try:
                await self.warm()
            except (GrammarError, OSError, RuntimeError, TimeoutError) as error:
                logger.error("the schema compiler does not start again: %s", error)

    async def _compile(self, constraint: Constraint) -> str | None:
        process = await self._worker()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the compiler process has no pipes")
        process.stdin.write(orjson.dumps({"kind": constraint.kind, "value": constraint.value}) + b"\n")
        try:
            async with asyncio.timeout(self._compile_seconds):
                line = await process.stdout.readline()
        except TimeoutError:
            await self._kill()
            return f"it takes longer than {self._compile_seconds:g} s to compile; simplify it"
        except asyncio.CancelledError:
            await self._kill()
            raise
        if not line:
            await self._kill()
            return "the compiler ended on it; simplify it"
        reason = orjson.loads(line)["reason"]
        return str(reason) if reason is not None else None

    async def _worker(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "serve.engine.grammar_worker",
            str(self._tokenizer_path),
            stdin=PIPE,
            stdout=PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=_PROJECT,
        )
        if self._process.stdout is None:
            raise RuntimeError("the compiler process has no pipes")
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await self._process.stdout.readline()
        except (TimeoutError, asyncio.CancelledError):
            await self._kill()
            raise
        if not ready:
            await self._kill()
            raise GrammarError("the server's schema compiler does not start", param="response_format")
        logger.debug("schema compiler started (pid %d)", self._process.pid)
        return self._process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
