"""Memory of a server that is up: what its engine wrote down while loading, and what its processes hold now."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import psutil

from benchmarks.quantisation.figures import MemoryFigures
from benchmarks.server import Server

_ENTRY_POINTS = """[vllm.general_plugins]
hotswap_bench_memory = benchmarks.quantisation.memory_plugin:register
"""


def plugin_folder(folder: Path) -> Path:
    """A folder to put on PYTHONPATH, from which vLLM learns of the memory plugin."""
    info = folder / "hotswap_bench_memory-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hotswap-bench-memory\nVersion: 0\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    return folder


def read_memory(server: Server, written: Path) -> MemoryFigures:
    """Both together; `written` is the file that the plugin was told to write."""
    steps = _steps(written)
    load, slots, kv_cache = steps.get("load"), steps.get("slots"), steps.get("kv_cache")
    slot_bytes = _added(slots)
    loaded = _added(load)
    pss, peak = _resident(server)
    return MemoryFigures(
        served=server.spec.name,
        # Slots are made within the loading.
        weights_bytes=None if loaded is None else loaded - (slot_bytes or 0),
        slots_bytes=slot_bytes,
        kv_cache_bytes=_added(kv_cache),
        pss_bytes=pss,
        peak_bytes=peak,
        load_seconds=load["seconds"] if load else None,
    )


def _steps(written: Path) -> dict[str, dict[str, float]]:
    if not written.is_file():
        return {}
    lines = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line for line in lines}


def _added(step: dict[str, float] | None) -> int | None:
    return None if step is None else max(0, int(step["after_bytes"] - step["before_bytes"]))


def _resident(server: Server) -> tuple[int | None, int | None]:
    """(proportional share, highest residence) of all processes of a server, in bytes."""
    pids = server.process_ids()
    if not pids or not psutil.LINUX:
        return None, None
    pss = peak = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            pss += _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")
            peak += _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:")
    return pss * 1024, peak * 1024


def _kilobytes(path: Path, name: str) -> int:
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
