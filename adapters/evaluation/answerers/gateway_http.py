"""Requests to a running gateway: patience when it is full, and its own words when it refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import httpx

from adapters.errors import EvaluationError

_CONNECT_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 30.0
_FULL = 429
_NOT_NOW = 503

Item = TypeVar("Item")
Result = TypeVar("Result")


class GatewayHttp:
    """One gateway. `key` is sent if there is one; `transport` and `sleep` replace network and clock in tests."""

    def __init__(
        self,
        url: str,
        *,
        concurrency: int,
        request_seconds: float,
        key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url = url
        self._concurrency = concurrency
        self._request_seconds = request_seconds
        self._headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        self._transport = transport
        self._sleep = sleep

    def client(self) -> httpx.AsyncClient:
        """A client to hand to `ask`. Raises EvaluationError for a URL that is none."""
        try:
            return httpx.AsyncClient(
                base_url=self.url,
                headers=self._headers,
                transport=self._transport,
                timeout=httpx.Timeout(self._request_seconds, connect=_CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=self._concurrency),
            )
        except httpx.InvalidURL as error:
            raise EvaluationError(
                f"{self.url!r} is no address ({error}); write --url like http://127.0.0.1:8000"
            ) from None

    async def ask(self, client: httpx.AsyncClient, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The JSON of a 200. A gateway that is full or not ready is asked again after its `Retry-After`.

        Raises EvaluationError.
        """
        deadline = time.monotonic() + self._request_seconds
        waited = 0.0
        while True:
            try:
                response = await client.request(method, path, **options)
            except (httpx.TimeoutException, httpx.TransportError, httpx.UnsupportedProtocol) as error:
                raise self._unreachable(error) from None
            if response.status_code == httpx.codes.OK:
                return self._json(response)
            pause = _retry_after(response)
            out_of_time = time.monotonic() >= deadline or waited >= self._request_seconds
            if pause is None or out_of_time:
                raise EvaluationError(
                    f"the gateway answered HTTP {response.status_code}: {_reason(response)}"
                )
            waited += pause
            await self._sleep(pause)

    async def ask_all(
        self,
        items: Sequence[Item],
        ask_one: Callable[[httpx.AsyncClient, Item], Awaitable[Result]],
        done: Callable[[int], None],
    ) -> list[Result]:
        """Ask for every item, so many at once as allowed; the first failure ends them all."""
        gate = asyncio.Semaphore(self._concurrency)
        finished = 0

        async def one(item: Item) -> Result:
            nonlocal finished
            async with gate:
                result = await ask_one(client, item)
            finished += 1
            done(finished)
            return result

        async with self.client() as client:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(item)) for item in items]
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise EvaluationError(
                f"what answers at {self.url} is no Hotswap gateway: it sent {response.text[:80]!r}"
            )
        return answer

    def _unreachable(self, error: httpx.TransportError) -> EvaluationError:
        if isinstance(error, httpx.ReadTimeout):
            return EvaluationError(
                f"the gateway at {self.url} gave no answer within {self._request_seconds:g} s; "
                "lower --concurrency or --max-new-tokens, or raise --request-seconds"
            )
        if isinstance(error, httpx.UnsupportedProtocol):
            return EvaluationError(f"{self.url!r} is no address; write --url like http://127.0.0.1:8000")
        return EvaluationError(
            f"no gateway answers at {self.url} ({type(error).__name__}); start one with `hotswap serve`, or name "
            "its address with --url"
        )


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait before asking again; None where it is no use."""
    if response.status_code not in (_FULL, _NOT_NOW):
        return None
    text = response.headers.get("Retry-After", "")
    if not (text.isascii() and text.isdigit()):
        return 1.0 if response.status_code == _FULL else None
    return min(float(text), _LONGEST_PAUSE_SECONDS)


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or "(no text)"
