"""A small synchronous client of a running gateway, for the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from adapters.artefact import AdapterFile, read_artefact
from adapters.errors import AdapterFileError
from serve.errors import ServeError
from serve.lifecycle.adapter_tar import TAR_END, tar_header, tar_padding

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 660.0
_SEND_SECONDS = 60.0  # for a piece of an upload


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
        timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS, write=_SEND_SECONDS)
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

    def push_adapter(
        self, name: str, folder: Path, *, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """PUT /admin/adapters/NAME with the adapter's files as a tar, made while it is sent.

        `progress` is told the bytes sent and all bytes. Raises AdapterFileError for a folder that is no
        adapter or changes meanwhile, GatewayRefusedError, GatewayUnreachableError.
        """
        with read_artefact(folder) as artefact:
            if artefact.problems:
                reasons = " ".join(problem.message for problem in artefact.problems)
                raise AdapterFileError(f"{folder} cannot be sent: {reasons}")
            files = list(artefact.files.values())
            total = len(TAR_END) + sum(len(part) for file in files for part in _frame(file))
            total += sum(file.num_bytes for file in files)
            return self._ask(
                "PUT",
                f"/admin/adapters/{quote(name, safe='')}",
                content=_tar(files, total, progress),
                headers={"Content-Type": "application/x-tar", "Content-Length": str(total)},
            )

    def unload_adapter(self, name: str, *, drain_seconds: float | None = None) -> dict[str, Any]:
        """DELETE /admin/adapters/NAME."""
        params = {} if drain_seconds is None else {"drain_seconds": drain_seconds}
        return self._ask("DELETE", f"/admin/adapters/{quote(name, safe='')}", params=params)

    def create_key(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /admin/keys."""
        return self._ask("POST", "/admin/keys", json=body)

    def list_keys(self) -> dict[str, Any]:
        """GET /admin/keys."""
        return self._ask("GET", "/admin/keys")

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """DELETE /admin/keys/ID."""
        return self._ask("DELETE", f"/admin/keys/{quote(key_id, safe='')}")

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


def describe_load(answer: dict[str, Any]) -> str:
    """What a load did, in one line, from the gateway's answer."""
    replaced = f", replaced {answer['replaced']}" if answer["replaced"] else ""
    done = "is live" if answer["created"] else "was live already"
    said = f"{answer['adapter']['live']} {done}{replaced}"
    probe = answer.get("probe")
    if probe is None:
        return said
    if probe["kind"] == "effect":
        return f"{said}; it moves log probabilities by up to {probe['max_difference_nats']:.3g} nats"
    slope = f", strength {probe['slope']:.2f}" if probe["slope"] is not None else ""
    return (
        f"{said}; probed over {probe['num_tokens']} tokens of the training: largest difference "
        f"{probe['max_difference_nats']:.3g} nats{slope}"
    )


def _frame(file: AdapterFile) -> tuple[bytes, bytes]:
    """What stands before and after a file's content in the tar."""
    return tar_header(file.name, file.num_bytes), tar_padding(file.num_bytes)


def _tar(
    files: list[AdapterFile], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[bytes]:
    sent = 0
    for file in files:
        head, padding = _frame(file)
        yield head
        for chunk in file.chunks(0, file.num_bytes):
            yield bytes(chunk)
            sent += len(chunk)
            if progress is not None:
                progress(sent, total)
        yield padding
    yield TAR_END
    if progress is not None:
        progress(total, total)


def _refused(response: httpx.Response) -> GatewayRefusedError:
    try:
        error = response.json()["error"]
        lines = [str(error["message"])]
        lines += [f"  {p['code']}: {p['message']}" for p in error.get("problems") or ()]
    except (ValueError, KeyError, TypeError):
        lines = [response.text[:300]]
    return GatewayRefusedError(f"HTTP {response.status_code}: " + "\n".join(lines))
