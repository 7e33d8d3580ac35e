"""The engine settings that the gateway chooses, read from its own code, so that no other engine can differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway import ServedBase

_GPU_SHARE = 0.84  # of its memory, for all vLLM servers that are up at once


@dataclass(frozen=True, slots=True)
class EqualSettings:
    """What every vLLM engine of a comparison is started with."""

    base_path: Path
    flags: tuple[str, ...]  # of `hotswap serve`, without the number format
    arguments: tuple[str, ...]  # of vLLM's own server
    environment: Mapping[str, str]  # with the gateway's mends of vLLM
    cores: int
    kv_cache_tokens: int  # about as many as the engine's KV cache holds; 0 on a GPU: what fits
    notes: Mapping[str, str]

    @property
    def stock_environment(self) -> Mapping[str, str]:
        """The same without the mends."""
        from serve.engine.cpu.kernel_choice import KERNELS_VARIABLE
        from serve.engine.cpu.plugin import PATCHES_VARIABLE

        ours = (KERNELS_VARIABLE, PATCHES_VARIABLE)
        return {name: value for name, value in self.environment.items() if name not in ours}


def equal_settings(
    base: ServedBase, *, kv_cache_gib: float, engines: int, adapters: int, dtype: str = "auto"
) -> EqualSettings:
    """Settings for `engines` vLLM servers that share the machine, with room for `adapters` in one batch.

    Raises SettingsError, BaseModelError.
    """
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from serve.engine.vllm.arguments import choose_arguments
    from serve.engine.vllm.machine import read_machine
    from serve.engine_setup import engine_wishes
    from serve.settings import GIB, load_settings

    machine = read_machine()
    wanted: dict[str, Any] = {"base": base.flags[-1], "dtype": dtype}
    flags: list[str] = []
    if machine.device == "cpu":
        wanted["kv_cache_gib"] = kv_cache_gib
        flags += ["--kv-cache-gib", f"{kv_cache_gib:g}"]
    elif engines > 1:
        share = f"gpu-memory-utilization={_GPU_SHARE / engines:.2f}"
        wanted["engine_arg"] = (share,)
        flags += ["--engine-arg", share]
    defaults = load_settings()
    for name in ("max_loras", "max_cpu_loras"):
        if adapters > getattr(defaults, name):
            wanted[name] = adapters
            flags += ["--" + name.replace("_", "-"), str(adapters)]
    settings = load_settings(**wanted)
    resolved = resolve_base(settings.base, home=settings.home)
    wishes = engine_wishes(settings, resolved, read_passport(resolved, home=settings.home))
    chosen = choose_arguments(machine, wishes)
    per_token = 4 * wishes.kv_values_per_token
    return EqualSettings(
        base_path=resolved.path,
        flags=tuple(flags),
        arguments=tuple(chosen.arguments),
        environment={**os.environ, **chosen.environment},
        cores=len(machine.cores),
        kv_cache_tokens=int(kv_cache_gib * GIB) // per_token if machine.device == "cpu" else 0,
        notes=chosen.notes,
    )
