"""How the stock vLLM server is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.load.client.wire import Dialect
from benchmarks.load.peers.equal_settings import EqualSettings
from benchmarks.load.peers.peer import KINDS, Peer
from benchmarks.server import ServerSpec

MODULE = "vllm.entrypoints.openai.api_server"
# Whatever of these is set was set for our gateway, or for a measurement of it.
_OWN_PREFIXES = ("VLLM_", "HOTSWAP_", "OMP_", "KMP_")


def vllm_peer(
    kind: str, equal: EqualSettings, dialect: Dialect, adapters: Mapping[str, Path] | None = None
) -> Peer:
    """`vllm`, `vllm-mended` or `vllm-defaults`; `adapters` are loaded when it starts, by name and folder."""
    if kind == "vllm-defaults":
        environment = {n: value for n, value in os.environ.items() if not n.startswith(_OWN_PREFIXES)}
        arguments: Sequence[str] = [f"--model={equal.base_path}"]
        return _peer(kind, arguments, environment, dialect, adapters=False)
    arguments = list(equal.arguments)
    if adapters:
        arguments += ["--lora-modules", *(f"{name}={path.absolute()}" for name, path in adapters.items())]
    environment = dict(equal.environment if kind == "vllm-mended" else equal.stock_environment)
    return _peer(kind, arguments, environment, dialect, adapters=True)


def _peer(
    kind: str, arguments: Sequence[str], environment: Mapping[str, str], dialect: Dialect, *, adapters: bool
) -> Peer:
    command = (sys.executable, "-m", MODULE, *arguments, "--host", "127.0.0.1", "--port", "{port}")
    spec = ServerSpec(kind, KINDS[kind], "", "/health", command, environment)
    notes = (
        ()
        if adapters
        else (f"{kind}: out of the box it takes no adapters, so that it is asked for the base",)
    )
    return Peer(spec, (dialect,), adapters=adapters, notes=notes)
