"""A gateway with a home of its own, started to be measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import make_tiny_base
from benchmarks.closed_loop.server import ServerSpec


def find_base(reference: str, folder: Path) -> ResolvedBase:
    """The base that `--base` names; "tiny" is a random one, made in `folder`. Raises BaseError."""
    from serve.settings import load_settings

    if reference == "tiny":
        reference = str(make_tiny_base(folder / "tiny"))
    return resolve_base(reference, home=load_settings().home)


def gateway_spec(home: Path, base: ResolvedBase, more: Sequence[str] = ()) -> ServerSpec:
    """How to start it; adapters are read from `home/adapters`. `more` are flags of `hotswap serve`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")}
    command = (
        *(sys.executable, "-m", "hotswap", "serve", "--port", "{port}", "--home", str(home)),
        *("--base", str(base.path), *more),
    )
    return ServerSpec("gateway", "Hotswap's gateway", base.name, "/readyz", command, environment)
