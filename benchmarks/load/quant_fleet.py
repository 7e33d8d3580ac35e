"""The gateways of the bases that are set side by side."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from adapters.check import check_adapter
from adapters.published import FoundAdapter, find_adapter
from bases.processor import available_memory_bytes
from benchmarks.gateway import gateway_spec
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.own_gateway import slot_rank
from benchmarks.load.quant_bases import AUTO, QuantBase
from benchmarks.quantisation.figures import MemoryFigures
from benchmarks.quantisation.memory import plugin_folder, read_memory
from benchmarks.quantisation.memory_plugin import MEMORY_VARIABLE
from benchmarks.quantisation.served import groups_that_fit
from benchmarks.server import Server, ServerSpec, running
from serve.client import GatewayClient, GatewayRefusedError

Say = Callable[[str], None]
_READY_SECONDS = 900.0
_PLAIN_RANK = 8


class Fleet:
    """The gateways of some bases, all with the same flags and the same adapters; logs and homes in `folder`."""

    def __init__(
        self,
        bases: Sequence[QuantBase],
        *,
        adapters: Sequence[FoundAdapter],
        kv_cache_gib: float,
        flags: Sequence[str],
        folder: Path,
        say: Say,
    ) -> None:
        self.bases = bases
        self._adapters = adapters
        self._kv_cache_gib = kv_cache_gib
        self._flags = (*_adapter_flags(adapters), f"--kv-cache-gib={kv_cache_gib:g}", *flags)
        self._folder = folder
        self._say = say

    @property
    def note(self) -> str:
        """For the report: how each was started, and with which adapters."""
        names = ", ".join(found.name for found in self._adapters)
        asked = f"requests over the adapters {names}" if names else "requests for the base"
        return f"Each base: hotswap serve --base BASE --dtype DTYPE {' '.join(self._flags)}; {asked}."

    def groups(self, *, apart: bool) -> list[list[QuantBase]]:
        """Those that are up at once: as many as memory holds, or with `apart` one at a time."""
        if apart:
            return [[base] for base in self.bases]
        return groups_that_fit(self.bases, self._kv_cache_gib, available_memory_bytes())

    @contextlib.contextmanager
    def up(self, group: Sequence[QuantBase]) -> Iterator[Mapping[str, Server]]:
        """Servers by the bases' names, ready and with their adapters.

        Raises ServerStartError, and LoadOptionError for a base that refuses an adapter.
        """
        self._say(f"starting {', '.join(base.name for base in group)}")
        specs = [self._spec(base) for base in group]
        with running(specs, logs=self._folder, ready_seconds=_READY_SECONDS) as servers:
            for base in group:
                with GatewayClient(servers[base.name].url) as client:
                    for found in self._adapters:
                        _push(client, base, found)
            yield servers

    def memory(self, base: QuantBase, server: Server) -> MemoryFigures:
        """What its engine wrote down while loading, and what its processes hold now."""
        return read_memory(server, self._memory_path(base))

    def _spec(self, base: QuantBase) -> ServerSpec:
        self._memory_path(base).unlink(missing_ok=True)
        dtype = () if base.dtype == AUTO else (f"--dtype={base.dtype}",)
        spec = gateway_spec(self._folder / "homes" / _file_name(base), base.served, (*dtype, *self._flags))
        path = (str(plugin_folder(self._folder / "plugin")), spec.environment.get("PYTHONPATH", ""))
        environment = {
            **spec.environment,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            MEMORY_VARIABLE: str(self._memory_path(base)),
        }
        return replace(spec, name=base.name, title=f"the gateway of {base.name}", environment=environment)

    def _memory_path(self, base: QuantBase) -> Path:
        return self._folder / f"memory-{_file_name(base)}.jsonl"


def find_adapters(text: str | None, home: Path) -> list[FoundAdapter]:
    """Folders or published names with commas. Raises AdapterNotFoundError, LoadOptionError for one twice."""
    found = [find_adapter(part.strip(), home=home) for part in (text or "").split(",") if part.strip()]
    if len({each.name for each in found}) != len(found):
        raise LoadOptionError(f"--adapter-folders {text!r}: two adapters have the same name")
    return found


def _file_name(base: QuantBase) -> str:
    return base.name.replace(" ", "-")


def _adapter_flags(adapters: Sequence[FoundAdapter]) -> tuple[str, ...]:
    ranks = [check_adapter(found.folder, target=None).facts.rank or _PLAIN_RANK for found in adapters]
    slots = max(1, len(adapters))
    highest = slot_rank(max(ranks, default=_PLAIN_RANK))
    return (f"--max-loras={slots}", f"--max-cpu-loras={slots}", f"--max-lora-rank={highest}")


def _push(client: GatewayClient, base: QuantBase, found: FoundAdapter) -> None:
    try:
        client.push_adapter(found.name, found.folder)
    except GatewayRefusedError as error:
        raise LoadOptionError(
            f"{base.name} does not take {found.name}, so that they cannot be compared with it: {error}"
        ) from None
