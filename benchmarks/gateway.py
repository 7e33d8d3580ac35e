"""A gateway with a home of its own, started to be measured, and the base that it serves."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bases.architecture import read_architecture
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base
from benchmarks.server import ServerSpec


@dataclass(frozen=True, slots=True)
class ServedBase:
    """What adapters are made for, and the flags of `hotswap serve` that serve it."""

    name: str
    linear_modules: Mapping[str, tuple[int, int]]
    flags: tuple[str, ...]
    folder: Path | None = None  # with its weights; None: it has none


def find_base(reference: str, folder: Path) -> ServedBase:
    """What `--base` names: as for `hotswap serve`; "tiny", a random one made in `folder`; or "scripted", the
    engine without a model, which leaves the gateway's own costs. Raises BaseNotFoundError, BaseInvalidError."""
    from serve.engine.scripted import SCRIPTED_TARGET
    from serve.settings import load_settings

    if reference == "scripted":
        return ServedBase("scripted", SCRIPTED_TARGET.linear_modules, ("--engine", "scripted"))
    if reference == "tiny":
        reference = str(make_tiny_base(folder / "tiny"))
    resolved = resolve_base(reference, home=load_settings().home)
    modules = read_architecture(resolved.path).linear_modules
    return ServedBase(resolved.name, modules, ("--base", str(resolved.path)), resolved.path)


def gateway_spec(home: Path, base: ServedBase, more: Sequence[str] = ()) -> ServerSpec:
    """How to start it; adapters are read from `home/adapters`. `more` are flags of `hotswap serve`."""
    environment = {
        name: value
        for name, value in os.environ.items()
        # The flag `--home` names the gateway's own; the engine finds its compiled kernels by the variable.
        if not name.startswith("HOTSWAP_") or name == "HOTSWAP_HOME"
    }
    command = [sys.executable, "-m", "hotswap", "serve", "--port", "{port}", "--home", str(home)]
    # A base that was found before has a name, which the folder that it lies in may not have.
    command += ["--served-model-name", base.name, *base.flags, *more]
    return ServerSpec("gateway", "Hotswap's gateway", base.name, "/readyz", command, environment)
