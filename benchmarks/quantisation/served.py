"""The servers of a report: each form of a base in each number format that it is served in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.quantisation.figures import MadeForm
from benchmarks.quantisation.memory import plugin_folder
from benchmarks.quantisation.memory_plugin import MEMORY_VARIABLE
from benchmarks.quantisation.plan import ReportPlan
from benchmarks.server import ServerSpec

_OWN_PREFIXES = ("VLLM_", "HOTSWAP_", "OMP_", "KMP_")
# What a server takes besides its weights: Python, torch and vLLM in two processes.
_PROGRAM_BYTES = 1_400_000_000
_KEPT_FREE_BYTES = 1_500_000_000
MAX_NUM_SEQS = 64


@dataclass(frozen=True, slots=True)
class Served:
    """One server: `name` is short and unique, such as `float32` or `int8-w8a8/bfloat16`."""

    name: str
    form: MadeForm
    dtype: str

    @property
    def title(self) -> str:
        """For people."""
        return self.name if self.form.scheme is None else f"{self.form.scheme}, {self.dtype}"

    @property
    def file_name(self) -> str:
        """For logs and folders."""
        return self.name.replace("/", "-")

    def needed_bytes(self, kv_cache_gib: float) -> int:
        """A generous guess at what the server takes."""
        per_stored = 1.5 if self.form.scheme is not None else 1.2
        return server_bytes(per_stored * self.form.disk_bytes, kv_cache_gib)


def server_bytes(weights_bytes: float, kv_cache_gib: float) -> int:
    """What a server takes with weights and a KV cache of that size."""
    return int(_PROGRAM_BYTES + weights_bytes + kv_cache_gib * 1024**3)


def servers_of(original: MadeForm, forms: Sequence[MadeForm], dtypes: Sequence[str]) -> list[Served]:
    """The original in float32 and in every other format of `dtypes`; then each form in each of `dtypes`.

    The first one is what the others are set against.
    """
    others = [dtype for dtype in dtypes if dtype != "float32"]
    found = [Served(dtype, original, dtype) for dtype in ("float32", *others)]
    return found + [Served(f"{form.scheme}/{dtype}", form, dtype) for form in forms for dtype in dtypes]


class NeedsMemory(Protocol):
    """Anything that can be up beside others."""

    def needed_bytes(self, kv_cache_gib: float) -> int:
        """A generous guess at what it takes."""
        ...


Fitting = TypeVar("Fitting", bound=NeedsMemory)


def groups_that_fit(served: Sequence[Fitting], kv_cache_gib: float, free_bytes: int) -> list[list[Fitting]]:
    """Servers that may be up at once, in order; one alone where even two are too many."""
    groups: list[list[Fitting]] = []
    room = 0
    for each in served:
        needed = each.needed_bytes(kv_cache_gib)
        if not groups or needed > room:
            groups.append([])
            room = free_bytes - _KEPT_FREE_BYTES
        groups[-1].append(each)
        room -= needed
    return groups


def spec_of(served: Served, plan: ReportPlan, *, folder: Path, adapter_rank: int) -> ServerSpec:
    """How to start one. Its home is a folder of its own, so that no adapter of another server comes up in it."""
    command = [sys.executable, "-m", "hotswap", "serve", "--port", "{port}"]
    command += ["--base", served.form.folder, "--dtype", served.dtype, "--served-model-name", "base"]
    command += ["--home", str(folder / "homes" / served.file_name), "--log-level", "warning"]
    command += ["--kv-cache-gib", str(plan.kv_cache_gib), "--max-num-seqs", str(MAX_NUM_SEQS)]
    command += ["--max-loras", "1", "--max-cpu-loras", "4", "--max-lora-rank", str(adapter_rank)]
    command += ["--no-structured-outputs", "--no-access-log"]
    return ServerSpec(
        name=served.name,
        title=f"the server of {served.title}",
        model="base",
        ready_path="/readyz",
        command=tuple(command),
        environment=_environment(plan, served, folder),
    )


def memory_file(served: Served, folder: Path) -> Path:
    """Where the engine of a server writes down its memory."""
    return folder / f"memory-{served.file_name}.jsonl"


def _environment(plan: ReportPlan, served: Served, folder: Path) -> Mapping[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_PREFIXES)}
    path = (str(plugin_folder(folder / "plugin")), own.get("PYTHONPATH", ""))
    own["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    own[MEMORY_VARIABLE] = str(memory_file(served, folder))
    if plan.isa is not None:
        from bases.processor import ISA_VARIABLE

        own[ISA_VARIABLE] = plan.isa
    return own
