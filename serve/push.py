"""From a finished training to a running gateway: what `hotswap train --push` and `hotswap adapters push` do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve.client import GatewayClient, describe_load


def push(
    folder: Path,
    name: str,
    *,
    url: str,
    admin_key: str | None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> str:
    """Send the adapter in `folder` to the gateway at `url` and load it as `name`; returns what came of it.

    `progress` is told the bytes sent and all bytes; `options` are those of the route.

    Raises AdapterFileError, GatewayUnreachableError, and
    GatewayRefusedError with the gateway's reason; the version that served before then still serves.
    """
    with GatewayClient(url, admin_key=admin_key) as client:
        answer = client.push_adapter(name, folder, progress=progress, **options)
    lines = [describe_load(answer)]
    lines += [f"warning {w['code']}: {w['message']}" for w in answer["warnings"]]
    return "\n".join(lines)
