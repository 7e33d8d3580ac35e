"""Who is compared with whom, and with which settings.

The settings of the stock server in the part `equal` are read from the gateway's own choice
(serve/engine/vllm/arguments.py), so that the two engines cannot differ.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.closed_loop.part import Contender, Part
from benchmarks.closed_loop.server import ServerSpec

STOCK_MODULE = "vllm.entrypoints.openai.api_server"
TUTORIAL_MODULE = "benchmarks.gateway_overhead.tutorial_service"
GPU_SHARE = "gpu-memory-utilization=0.42"
_OWN_PREFIXES = ("VLLM_", "HOTSWAP_", "OMP_", "KMP_")


GENERATE = Contender("gateway-generate", "Hotswap POST /generate", "gateway", "generate")
COMPLETIONS = Contender("gateway-completions", "Hotswap /v1/completions", "gateway", "completions")
STOCK = Contender("vllm", "vLLM server /v1/completions", "vllm", "completions")
TUTORIAL = Contender("tutorial", "FastAPI + model.generate", "tutorial", "tutorial")


def equal_part(base: str, home: Path, kv_cache_gib: float) -> Part:
    """Our gateway and the stock server, both with the engine settings that the gateway chooses."""
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from serve.engine.vllm.arguments import choose_arguments
    from serve.engine.vllm.machine import read_machine
    from serve.engine_setup import engine_wishes
    from serve.settings import load_settings

    machine = read_machine()
    if machine.device == "cpu":
        memory: dict[str, Any] = {"kv_cache_gib": kv_cache_gib}
        flags = ("--kv-cache-gib", str(kv_cache_gib))
    else:  # both servers are on the device at once
        memory = {"engine_arg": (GPU_SHARE,)}
        flags = ("--engine-arg", GPU_SHARE)
    settings = load_settings(base=base, home=home, **memory)
    resolved = resolve_base(settings.base, home=settings.home)
    wishes = engine_wishes(settings, resolved, read_passport(resolved, home=settings.home))
    chosen = choose_arguments(machine, wishes)
    environment = {**os.environ, **chosen.environment}
    gateway = _gateway_command(base, settings.home, *flags)
    return Part(
        name="equal",
        title="Same engine settings: what the gateway itself costs",
        servers=(
            _gateway(gateway, environment, wishes.model_name),
            _stock(chosen.arguments, environment, wishes.model_name),
        ),
        contenders=(GENERATE, COMPLETIONS, STOCK),
        baseline=STOCK.name,
        together=True,
        settings=chosen.notes,
    )


def defaults_part(base: str, home: Path, *, tutorial: bool) -> Part:
    """Each server as it comes: no settings but the model and the port, no environment of ours."""
    from bases.resolve import resolve_base

    resolved = resolve_base(base, home=home)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_PREFIXES)}
    path = str(resolved.path)
    servers = [
        _gateway(_gateway_command(base, home), environment, resolved.name),
        _stock([f"--model={path}"], environment, path),
    ]
    contenders = [GENERATE, STOCK]
    if tutorial:
        command = (sys.executable, "-m", TUTORIAL_MODULE, "--model", path, "--port", "{port}")
        title = "FastAPI handler that calls model.generate"
        servers.append(ServerSpec("tutorial", title, path, "/openapi.json", command, environment))
        contenders.append(TUTORIAL)
    return Part(
        name="defaults",
        title="Out of the box: each with its own defaults",
        servers=tuple(servers),
        contenders=tuple(contenders),
        baseline=STOCK.name,
        together=False,
    )


def running_part(gateway_url: str, stock_url: str, model: str) -> Part:
    """Two servers that run already; their settings are whatever they were started with."""
    return Part(
        name="running",
        title="Servers that were running already",
        servers=(
            ServerSpec("gateway", "the gateway", model, "/readyz", url=gateway_url),
            ServerSpec("vllm", "the other server", model, "/v1/models", url=stock_url),
        ),
        contenders=(GENERATE, COMPLETIONS, replace(STOCK, title="the other server /v1/completions")),
        baseline=STOCK.name,
        together=True,
    )


def _gateway_command(base: str, home: Path, *more: str) -> tuple[str, ...]:
    command = (sys.executable, "-m", "hotswap", "serve", "--port", "{port}", "--home", str(home))
    return (*command, "--base", base, *more)


def _gateway(command: Sequence[str], environment: Mapping[str, str], model: str) -> ServerSpec:
    return ServerSpec("gateway", "Hotswap's gateway", model, "/readyz", command, environment)


def _stock(arguments: Sequence[str], environment: Mapping[str, str], model: str) -> ServerSpec:
    command = (sys.executable, "-m", STOCK_MODULE, *arguments, "--host", "127.0.0.1", "--port", "{port}")
    return ServerSpec("vllm", "the stock vLLM server", model, "/health", command, environment)
