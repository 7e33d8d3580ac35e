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
# The server closes connections after 5 idle seconds; a request that is sent in that moment is lost.
_LIMITS = httpx.Limits(keepalive_expiry=2.0)
_POLL_SECONDS = 30.0  # how long one look at an operation waits for its end


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
            address = httpx.URL(url)
            if address.scheme not in ("http", "https") or not address.host:
                raise httpx.InvalidURL("it needs http:// or https://, and a host")
            self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout, limits=_LIMITS)
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
        event = ""
        for event, fields in self._stream("POST", "/generate", json={**body, "stream": True}):
            yield {"event": event, **fields}
        if event != "done":
            raise GatewayRefusedError("the gateway closed the connection before the answer was complete")

    def list_adapters(self) -> dict[str, Any]:
        """GET /admin/adapters."""
        return self._ask("GET", "/admin/adapters")

    def load_adapter(self, name: str, source: str, **options: Any) -> dict[str, Any]:
        """POST /admin/adapters; `options` are further fields of its body, None where not given."""
        return self.verb("POST", "/admin/adapters", json={"name": name, "source": source, **_given(options)})

    def push_adapter(
        self,
        name: str,
        folder: Path,
        *,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """PUT /admin/adapters/NAME with the adapter's files as a tar, made while it is sent.

        `progress` is told the bytes sent and all bytes; `options` are query parameters, None where not given.
        Raises AdapterFileError for a folder that is no adapter or changes meanwhile, GatewayRefusedError,
        GatewayUnreachableError.
        """
        with read_artefact(folder) as artefact:
            if artefact.problems:
                reasons = " ".join(problem.message for problem in artefact.problems)
                raise AdapterFileError(f"{folder} cannot be sent: {reasons}")
            files = list(artefact.files.values())
            total = len(TAR_END) + sum(len(part) for file in files for part in _frame(file))
            total += sum(file.num_bytes for file in files)
            return self.verb(
                "PUT",
                adapter_path(name),
                params=_given(options),
                content=_tar(files, total, progress),
                headers={"Content-Type": "application/x-tar", "Content-Length": str(total)},
            )

    def unload_adapter(self, name: str, *, drain_seconds: float | None = None) -> dict[str, Any]:
        """DELETE /admin/adapters/NAME."""
        return self.verb("DELETE", adapter_path(name), params=_given({"drain_seconds": drain_seconds}))

    def verb(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """What a verb of the admin API answers, however long it takes. Raises GatewayRefusedError."""
        answer = self._ask(method, path, **options)
        while answer.get("state") == "running" and "phases" in answer:
            answer = self._ask("GET", f"/admin/operations/{answer['id']}", params={"wait": _POLL_SECONDS})
            if answer["state"] == "done":
                result: dict[str, Any] = answer["result"]
                return result
            if answer["state"] == "failed":
                raise GatewayRefusedError(f"HTTP {answer['status']}: " + _explain(answer["error"]))
        return answer

    def read(self, path: str, **params: Any) -> dict[str, Any]:
        """GET with these query parameters, None where not given. Raises GatewayRefusedError."""
        return self._ask("GET", path, params=_given(params))

    def events(self, **params: Any) -> Iterator[dict[str, Any]]:
        """The fields of each event of GET /admin/events, as they come. Raises ServeError."""
        # The gateway says something every 15 s.
        timeout = httpx.Timeout(_SEND_SECONDS, connect=_CONNECT_SECONDS)
        for _, fields in self._stream("GET", "/admin/events", params=_given(params), timeout=timeout):
            yield fields

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

    def _stream(self, method: str, path: str, **asked: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, fields) of each server-sent event; one that is called `error` is raised. Raises ServeError."""
        try:
            with self._http.stream(method, path, **asked) as response:
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
                        yield event, fields
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx.HTTPError) -> GatewayUnreachableError:
        return GatewayUnreachableError(
            f"no gateway answers at {self._url} ({type(error).__name__}); start one with `hotswap serve`, "
            "or name its address with --url"
        )


def adapter_path(name: str, *more: str) -> str:
    """The path of an adapter in the admin API, and of what is below it."""
    return "/".join(("/admin/adapters", *(quote(part, safe="") for part in (name, *more))))


def describe_load(answer: dict[str, Any]) -> str:
    """What a load did, in one line, from the gateway's answer."""
    replaced = f", replaced {answer['replaced']}" if answer["replaced"] else ""
    done = "is live" if answer["created"] else "was live already"
    version, live = answer["version"], answer["adapter"]["live"]
    if version != live:
        done = "is loaded" if answer["created"] else "was loaded already"
        done += f" beside {live}" if live is not None else ""
    said = f"{version} {done}{replaced}"
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
        said = _explain(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        said = response.text[:300]
    return GatewayRefusedError(f"HTTP {response.status_code}: {said}")


def _explain(error: dict[str, Any]) -> str:
    lines = [str(error["message"])]
    lines += [f"  {p['code']}: {p['message']}" for p in error.get("problems") or ()]
    return "\n".join(lines)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Without what was not given."""
    return {name: value for name, value in options.items() if value is not None}
