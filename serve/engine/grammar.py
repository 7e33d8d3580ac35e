"""Compiles a schema or regex in a process that can be killed, before the engine sees it.

One pattern can take a compiler minutes, and the engine compiles inside the process that serves everybody
(GHSA-rwxx-mrjm-wc2m, CVE-2026-105757). What compiles here within the limit compiles there too; what does not is
the client's error.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict
from pathlib import Path

import orjson

from serve.engine.protocol import Constraint
from serve.errors import GrammarError

logger = logging.getLogger("hotswap.grammar")

MAX_REMEMBERED = 256
_START_SECONDS = 120.0
_PROJECT = Path(__file__).resolve().parents[2]


class GrammarGuard:
    """Vets constraints. One compile at a time; verdicts are remembered, least recently used go."""

    def __init__(self, *, enabled: bool, tokenizer_path: Path | None, compile_seconds: float) -> None:
        self._enabled = enabled
        self._tokenizer_path = tokenizer_path
        self._compile_seconds = compile_seconds
        self._lock = asyncio.Lock()
        self._process: Process | None = None
        self._verdicts: OrderedDict[Constraint, str | None] = OrderedDict()

    async def check(self, constraint: Constraint | None) -> None:
        """Raises GrammarError when constraints are off, or this one cannot be compiled in time."""
        if constraint is None:
            return
        if not self._enabled:
            raise GrammarError("structured outputs are switched off on this server", param="response_format")
        if self._tokenizer_path is None or constraint.kind == "json_object":
            return
        if constraint not in self._verdicts:
            async with self._lock:
                if constraint not in self._verdicts:
                    self._verdicts[constraint] = await self._compile(constraint)
                    while len(self._verdicts) > MAX_REMEMBERED:
                        self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(constraint)
        reason = self._verdicts[constraint]
        if reason is not None:
            raise GrammarError(f"this {constraint.kind} cannot be used: {reason}", param="response_format")

    async def warm(self) -> None:
        """Start the compiler process, so that the first constraint does not wait for it."""
        if self._enabled and self._tokenizer_path is not None:
            async with self._lock:
                await self._worker()

    async def close(self) -> None:
        """End the compiler process."""
        async with self._lock:
            await self._kill()

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
