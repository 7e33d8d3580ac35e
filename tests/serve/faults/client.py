"""What the fault tests share: a client that speaks in bytes, the shape of a refusal, and a well-behaved client."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from serve.engine.protocol import EngineRequest
from tests.own_time import own_seconds
from tests.patience import patient
from tests.serve.asgi_call import events_of
from tests.serve.conftest import RunningServer

REPLY_SECONDS = patient(1.0)  # every refusal comes within this time
ABORT_SECONDS = patient(2.0)  # whoever left is gone from the engine within this time
BYSTANDER_PROMPT = "bystander"
BYSTANDER_TOKENS = 40
_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float  # of this process's own time, which the server shares

    def json(self) -> Any:
        return orjson.loads(self.body)


class Wire:
    """One connection on which the test writes bytes of its choice."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next answer; the time runs from this call."""
        started = own_seconds()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = b"" if "chunked" in headers.get("transfer-encoding", "") else await self.reader.read()
        return Answer(int(head[0].split()[1]), headers, body, own_seconds() - started)

    async def closed(self) -> bool:
        """Wait until the server closes the connection; False when something else came."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def leave(self) -> None:
        """Close the connection as a client that was killed does."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def wire(server: RunningServer, **options: Any) -> AsyncIterator[Wire]:
    """A connection to the server."""
    address = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(address.host, address.port, **options)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def http(method: str, path: str, body: Any = None, *headers: str, host: str = "localhost") -> bytes:
    """One request as bytes; `body` is JSON, or bytes as they are."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else b""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", *headers]
    if raw:
        lines.append(f"Content-Length: {len(raw)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + raw


async def until(condition: Callable[[], bool], what: str, seconds: float = ABORT_SECONDS) -> None:
    """Wait for a condition, or fail after so much of this process's own time, which the server shares."""
    deadline = own_seconds() + seconds
    while not condition():
        assert own_seconds() < deadline, f"after {seconds} s still not: {what}"
        await asyncio.sleep(_POLL_SECONDS)


def refusal(answer: httpx.Response | Answer, case: object = "") -> dict[str, Any]:
    """The fields of an error in the gateway's one shape; fails for anything else."""
    status = answer.status_code if isinstance(answer, httpx.Response) else answer.status
    shown = f"{case}: {status}"
    assert status >= 400, shown
    assert status < 500 or status in (503, 504, 507), shown
    assert answer.headers["content-type"] == "application/json", shown
    body = answer.json()
    assert set(body) == {"error"}, shown
    error: dict[str, Any] = body["error"]
    assert {"type", "code", "message", "param", "request_id"} <= set(error), shown
    assert re.fullmatch(r"req-[0-9a-f]{24}", error["request_id"]), shown
    assert answer.headers["x-request-id"] == error["request_id"], shown
    assert error["message"], shown
    assert len(error["message"]) < 4000, shown
    assert "Traceback" not in error["message"], shown
    return error


@dataclass
class Bystander:
    """A client that does nothing wrong and notices whatever disturbs it."""

    server: RunningServer
    finished: int = 0
    faults: list[str] = field(default_factory=list)
    longest_gap_seconds: float = 0.0  # of this process's own time, which the server shares
    _stop: bool = False

    async def run(self, client: httpx.AsyncClient) -> None:
        while not self._stop or not self.finished:
            await self._stream(client)

    def stop(self) -> None:
        self._stop = True

    async def _stream(self, client: httpx.AsyncClient) -> None:
        body = {"prompt": BYSTANDER_PROMPT, "max_tokens": BYSTANDER_TOKENS, "stream": True}
        last, received = own_seconds(), b""
        async with client.stream("POST", "/generate", json=body) as response:
            async for chunk in response.aiter_bytes():
                now = own_seconds()
                self.longest_gap_seconds = max(self.longest_gap_seconds, now - last)
                last = now
                received += chunk
        events = events_of(received)
        if response.status_code != 200 or [name for name, _ in events] != ["delta"] * BYSTANDER_TOKENS + [
            "done"
        ]:
            self.faults.append(f"{response.status_code} {received[-300:]!r}")
        self.finished += 1


@contextlib.asynccontextmanager
async def undisturbed(server: RunningServer, *, key: str | None = None) -> AsyncIterator[Bystander]:
    """While the block runs, a good client streams; after it, nothing has disturbed that client or the server.

    The engine paces the good streams at 2 ms a token. In the end the server is ready and holds nothing.
    `key` is what the good client sends.
    """
    server.engine.script.tpot_seconds = 0.002
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=patient(5)) as client:
        bystander = Bystander(server)
        task = asyncio.create_task(bystander.run(client))
        try:
            yield bystander
        finally:
            bystander.stop()
            async with asyncio.timeout(patient(20)):
                await task
        ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert bystander.faults == []
    assert bystander.longest_gap_seconds < REPLY_SECONDS
    assert holds_nothing(server)


def strangers(server: RunningServer) -> list[EngineRequest]:
    """Requests that reached the engine and are not the bystander's."""
    good = list(BYSTANDER_PROMPT.encode())
    return [request for request in server.engine.requests if list(request.prompt_token_ids) != good]


def holds_nothing(server: RunningServer) -> bool:
    """True when no request left anything behind: engine, queue, leases, running requests."""
    gateway = server.gateway
    admission = gateway.admission
    return (
        not server.engine.active
        and (admission.running, admission.queued_requests, admission.queued_tokens) == (0, 0, 0)
        and admission.requests == 0
        and len(gateway.running) == 0
        and all(managed.in_flight == 0 for managed in gateway.adapters.board.versions())
    )


def aborts(server: RunningServer, reason: str) -> float:
    """The counter of ended requests."""
    value = server.gateway.metrics.registry.get_sample_value("hotswap_aborts_total", {"reason": reason})
    return value or 0.0


def resident_mib() -> float:
    """Memory of this process, which is also the server's."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 1024**2
