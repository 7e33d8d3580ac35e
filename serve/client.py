"""A small synchronous client of a running gateway, for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from serve.errors import ServeError

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 660.0


class GatewayUnreachableError(ServeError):
    """No gateway answers at the URL."""

    code = "gateway_unreachable"


class GatewayRefusedError(ServeError):
    """The gateway answered with an error; the text is the gateway's own."""

    code = "gateway_refused"


class GatewayClient:
    """Speaks to one gateway. Use it in a `with` statement."""

    def __init__(self, url: str, *, admin_key: str | None = None) -> None:
        """Raises GatewayUnreachableError for a URL that is none."""
        headers = {"Authorization": f"Bearer {admin_key}"} if admin_key else {}
        self._url = url
        timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise GatewayUnreachableError(
                f"{url!r} is no address ({error}); write --url like http://127.0.0.1:8000"
            ) from None

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def generate(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Events of a streamed answer: {"event": "delta" | "done", ...fields}. Raises ServeError."""
        try:
            with self._http.stream("POST", "/generate", json={**body, "stream": True}) as response:
                if response.status_code != 200:
                    response.read()
                    raise _refused(response)
                event = ""
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        event = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        fields = orjson.loads(line.removeprefix("data: "))
                        if event == "error":
                            raise GatewayRefusedError(str(fields["error"]["message"]))
                        yield {"event": event, **fields}
                if event != "done":
                    raise GatewayRefusedError(
                        "the gateway closed the connection before the answer was complete"
                    )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def list_adapters(self) -> dict[str, Any]:
        """GET /admin/adapters."""
        return self._ask("GET", "/admin/adapters")

    def load_adapter(self, name: str, source: str) -> dict[str, Any]:
        """POST /admin/adapters."""
        return self._ask("POST", "/admin/adapters", json={"name": name, "source": source})

    def unload_adapter(self, name: str, *, drain_seconds: float | None = None) -> dict[str, Any]:
        """DELETE /admin/adapters/NAME."""
        params = {} if drain_seconds is None else {"drain_seconds": drain_seconds}
        return self._ask("DELETE", f"/admin/adapters/{quote(name, safe='')}", params=params)

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if response.status_code >= 400:
            raise _refused(response)
        answer: dict[str, Any] = response.json()
        return answer

    def _unreachable(self, error: httpx.HTTPError) -> GatewayUnreachableError:
        return GatewayUnreachableError(
            f"no gateway answers at {self._url} ({type(error).__name__}); start one with `hotswap serve`, "
            "or name its address with --url"
        )


def _refused(response: httpx.Response) -> GatewayRefusedError:
    try:
        error = response.json()["error"]
        lines = [str(error["message"])]
        lines += [f"  {p['code']}: {p['message']}" for p in error.get("problems") or ()]
    except (ValueError, KeyError, TypeError):
        lines = [response.text[:300]]
    return GatewayRefusedError(f"HTTP {response.status_code}: " + "\n".join(lines))
