"""A scripted engine that writes down when it did what, so that a client's times can be set beside the server's."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve.engine.protocol import EngineOutput, EngineRequest
from serve.engine.scripted import Script, ScriptedEngine


@dataclass(slots=True)
class ServedRequest:
    """The server's own moments of one request, by `time.monotonic`, which all processes of a machine share."""

    came_seconds: float = math.inf
    token_seconds: list[float] = field(default_factory=list)

    @property
    def ttft_seconds(self) -> float:
        """From when the engine had it to the first token."""
        return self.token_seconds[0] - self.came_seconds

    @property
    def tpot_seconds(self) -> float:
        """Mean seconds per token after the first."""
        return (self.token_seconds[-1] - self.token_seconds[0]) / (len(self.token_seconds) - 1)


class TimedEngine(ScriptedEngine):
    """Each moment is written before anybody sees what happened then: a line of JSON in `path`."""

    def __init__(self, script: Script, path: Path, **options: Any) -> None:
        """Options are those of ScriptedEngine."""
        super().__init__(script, **options)
        self._out = path.open("a", encoding="utf-8", buffering=1)  # for as long as the process lives

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        prompt = bytes(request.prompt_token_ids).decode("utf-8", "replace")
        self._write(prompt, 0)
        async with aclosing(super().generate(request)) as outputs:
            place = 0
            async for output in outputs:
                place += 1
                self._write(prompt, place)
                yield output

    def _write(self, prompt: str, place: int) -> None:
        """`place`: 0 when the engine gets the request, then that of the token."""
        self._out.write(json.dumps([prompt, place, time.monotonic()]) + "\n")


def read_moments(path: Path) -> dict[str, ServedRequest]:
    """The requests in the file by their prompts, of which no two are alike."""
    found: dict[str, ServedRequest] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        prompt, place, moment = json.loads(line)
        request = found.setdefault(prompt, ServedRequest())
        if place:
            request.token_seconds.append(moment)
        else:
            request.came_seconds = moment
    return found
