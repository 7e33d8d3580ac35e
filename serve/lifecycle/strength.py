"""Finds out at which strength an adapter would answer as in training, by loading it at others.

Numbers alone do not tell a doubled alpha from damaged weights: an adapter at twice its strength no longer says
what it was trained to say. But alpha is a number in a small file, so the same weights are loaded again under a
name of their own with another one, and asked the same. Done only for an adapter that is refused anyway.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME, MAX_CONFIG_BYTES, AdapterConfig, parse_config
from adapters.store.disk import store_errors
from adapters.store.store import AdapterStore
from serve.engine.protocol import AdapterHandle, Engine
from serve.lifecycle.staging import run_whole, staging_folder

# Gives an adapter at `factor` times its strength, loaded for the length of the block.
AtStrength = Callable[[AdapterHandle, float], AbstractAsyncContextManager[AdapterHandle]]

_USUAL_FACTORS = (2.0, 0.5, 4.0, 0.25)


class Strengths:
    """Loads adapters at other strengths. Belongs to one event loop."""

    def __init__(self, engine: Engine, store: AdapterStore, next_engine_id: Callable[[], int]) -> None:
        self._engine = engine
        self._store = store
        self._next_engine_id = next_engine_id

    @asynccontextmanager
    async def at(self, adapter: AdapterHandle, factor: float) -> AsyncIterator[AdapterHandle]:
        """The adapter with `factor` times its alpha. Raises AdapterError, LifecycleError, EngineError."""
        async with staging_folder(self._store) as folder:
            await run_whole(_write_scaled, adapter.path, folder, factor)
            handle = AdapterHandle(f"{adapter.name}~{factor:g}", self._next_engine_id(), folder)
            await self._engine.load_adapter(handle)
            try:
                yield handle
            finally:
                await self._engine.unload_adapter(handle)


def likely_factors(adapter: Path, slope: float | None) -> Sequence[float]:
    """Factors of alpha worth trying, without 1: twice, half, rsLoRA's root of the rank, and what `slope` says."""
    config = _read_config(adapter)
    root = math.sqrt(config.rank)
    factors = [*_USUAL_FACTORS, root, 1 / root]
    if slope is not None and slope > 0.05:
        factors.insert(0, round(1 / slope, 3))
    return [factor for factor in dict.fromkeys(factors) if abs(factor - 1) > 0.05]


def _read_config(folder: Path) -> AdapterConfig:
    with (folder / CONFIG_NAME).open("rb") as file:
        return parse_config(file.read(MAX_CONFIG_BYTES))


def _write_scaled(source: Path, target: Path, factor: float) -> None:
    with store_errors("copy an adapter to try its strength"):
        values = json.loads((source / CONFIG_NAME).read_bytes())
        values["lora_alpha"] *= factor
        values["alpha_pattern"] = {
            name: alpha * factor for name, alpha in (values.get("alpha_pattern") or {}).items()
        }
        (target / CONFIG_NAME).write_text(json.dumps(values), encoding="utf-8")
        try:
            os.link(source / WEIGHTS_NAME, target / WEIGHTS_NAME)
        except OSError:  # a file system without links
            shutil.copyfile(source / WEIGHTS_NAME, target / WEIGHTS_NAME)
