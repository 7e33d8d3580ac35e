"""The server that is measured: what it serves, and how it counts tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.load.client.wire import PATHS, Dialect, read_payload, request_body
from benchmarks.load.errors import TargetError
from benchmarks.load.workload.words import WORDS

_DEFAULT_CONTEXT_TOKENS = 4096
_PROBE_WORDS = 16
_UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL)


@dataclass(frozen=True, slots=True)
class Target:
    """A server that answers."""

    url: str
    dialect: Dialect
    base: str  # its name for the base
    adapters: tuple[str, ...]  # that may be asked for
    context_tokens: int
    overhead_tokens: int  # around a prompt, by the server's own count

    def shown(self) -> dict[str, Any]:
        """For the report."""
        return {
            "url": self.url,
            "dialect": self.dialect,
            "base": self.base,
            "adapters": list(self.adapters),
            "context_tokens": self.context_tokens,
        }


def read_target(
    url: str,
    dialect: Dialect,
    *,
    adapters: tuple[str, ...] | None,
    key: str | None = None,
    timeout_seconds: float = 60.0,
) -> Target:
    """Ask a server what it serves, and for one token. `adapters` None: all that it lists.

    Raises TargetError when it cannot be reached, refuses, or does not serve an adapter that is asked for.
    """
    url = url.rstrip("/")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(headers=headers, timeout=timeout_seconds) as client:
        cards = (
            [{"id": "tutorial"}] if dialect == "tutorial" else _get(client, url + "/v1/models").get("data")
        )
        if not isinstance(cards, list) or not cards or not all(map(_is_card, cards)):
            raise TargetError(f"{url}/v1/models lists no model; is this an LLM server?")
        base = next((card for card in cards if card.get("parent") is None), cards[0])
        listed = [
            str(card["id"]) for card in cards if card.get("parent") is not None and "@" not in card["id"]
        ]
        if adapters is None:
            adapters = tuple(listed)
        missing = [name for name in adapters if name not in {str(card["id"]) for card in cards}]
        if missing:
            known = ", ".join(listed) or "none"
            raise TargetError(f"{url} serves no adapter called {', '.join(missing)}; it serves: {known}")
        context = base.get("max_model_len") or _DEFAULT_CONTEXT_TOKENS
        overhead = _overhead(client, url, dialect, str(base["id"]))
    return Target(url, dialect, str(base["id"]), adapters, int(context), overhead)


def _overhead(client: httpx.Client, url: str, dialect: Dialect, base: str) -> int:
    text = " ".join(WORDS[:_PROBE_WORDS])
    body = request_body(dialect, model=base, adapter=None, prompt=text, max_tokens=1, stream=False)
    try:
        answer = client.post(url + PATHS[dialect], content=body, headers={"Content-Type": "application/json"})
    except _UNREACHABLE as error:
        raise TargetError(f"{url} does not answer a request: {type(error).__name__}: {error}") from None
    if answer.status_code != 200:
        raise TargetError(f"{url}{PATHS[dialect]} answers {answer.status_code}: {answer.text[:300]}")
    try:
        counted = read_payload(answer.json()).prompt_tokens
    except (ValueError, AttributeError):
        raise TargetError(
            f"{url}{PATHS[dialect]} does not answer like an LLM server: {answer.text[:100]!r}"
        ) from None
    if counted is None:
        raise TargetError(
            f"{url}{PATHS[dialect]} does not count tokens (`usage`), without which there are no figures"
        )
    return counted - _PROBE_WORDS


def _is_card(card: object) -> bool:
    return isinstance(card, dict) and isinstance(card.get("id"), str)


def _get(client: httpx.Client, url: str) -> dict[str, Any]:
    try:
        answer = client.get(url)
        answer.raise_for_status()
        found = answer.json()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        hint = (
            "; send a key with --key" if status in (401, 403) else "; is this the address of an LLM server?"
        )
        raise TargetError(f"{url} answers {status}{hint}") from None
    except (*_UNREACHABLE, ValueError) as error:
        raise TargetError(
            f"nothing that serves models answers at {url}: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(found, dict):
        raise TargetError(f"{url} does not answer like an LLM server")
    return found
