"""The ways of training that are compared, and how an adapter of each is made from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.export.servable import EXACT_ERROR
from benchmarks.surroundings import CHECKOUT

# What a conversion may be off by, as a share of the change; the table shows what it was.
MAX_ERROR = 0.3
# Ranks and scales that differ by module, as no other kind has them.
PATTERNS_BASE = {"r": 8, "lora_alpha": 16}
RANK_PATTERN = {"q_proj": 16, "down_proj": 4}
ALPHA_PATTERN = {"q_proj": 16, "v_proj": 32}


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of training; `options` are flags of `hotswap train`."""

    name: str
    title: str
    options: tuple[str, ...] = ()


KINDS = {
    kind.name: kind
    for kind in (
        Kind("lora", "LoRA", ("--method", "lora")),
        Kind("rslora", "rsLoRA", ("--method", "rslora")),
        Kind("pissa", "PiSSA, converted to the original base", ("--method", "pissa")),
        Kind("olora", "OLoRA, converted to the original base", ("--method", "olora")),
        Kind("adalora", "AdaLoRA, its ranks made equal", ("--method", "adalora")),
        Kind("dora", "DoRA, converted to LoRA", ("--method", "dora", "--targets", "q_proj,v_proj")),
        Kind("full", "full fine-tune, its difference extracted", ("--method", "full")),
        Kind("patterns", "LoRA with ranks and scales by module"),
    )
}


def make_adapter(kind: Kind, *, data: Path, steps: int, home: Path) -> Path:
    """Train one with `hotswap train`, or make one with patterns; return its folder below `home`/adapters.

    Raises subprocess.CalledProcessError with the command's own message on standard error.
    """
    name = f"fidelity-{kind.name}"
    before = set(_versions(home, name))
    if kind.options:
        options = ("--max-steps", str(steps), "--batch-size", "8", "--patience", "0", "--eval-examples", "16")
        _hotswap(
            "train",
            str(data),
            "--name",
            name,
            "--max-export-error",
            str(MAX_ERROR),
            *options,
            *kind.options,
            home=home,
        )
    else:
        _patterned(name, home)
    made = [folder for folder in _versions(home, name) if folder not in before]
    # The same training gives the same version, which was there before.
    return made[0] if made else max(_versions(home, name), key=lambda folder: folder.stat().st_mtime)


def conversion_error(folder: Path) -> float | None:
    """Largest relative error of a module's change that the export wrote into the manifest; None where exact."""
    record = json.loads((folder / "hotswap.json").read_text(encoding="utf-8"))["training"]
    error = record.get("export", {}).get("max_relative_error")
    return None if error is None or error <= EXACT_ERROR else float(error)


def _versions(home: Path, name: str) -> list[Path]:
    return [folder for folder in (home / "adapters" / name).glob("*") if folder.is_dir()]


def _hotswap(*arguments: str, home: Path) -> None:
    import os

    subprocess.run(
        [sys.executable, "-m", "hotswap", *arguments],
        check=True,
        cwd=CHECKOUT,
        env={**os.environ, "HOTSWAP_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )


def _patterned(name: str, home: Path) -> None:
    """A stock PEFT adapter with patterns and random weights, through `hotswap adapters export`."""
    import tempfile

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from bases.resolve import resolve_base

    torch.manual_seed(0)
    base = resolve_base(None, home=home)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32),
        LoraConfig(
            **PATTERNS_BASE,
            target_modules="all-linear",
            rank_pattern=RANK_PATTERN,
            alpha_pattern=ALPHA_PATTERN,
            task_type="CAUSAL_LM",
        ),
    )
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.01)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        out = home / "adapters" / name / "patterns"
        if not out.exists():
            _hotswap("adapters", "export", folder, "--base", "default", "--out", str(out), home=home)


def chosen(names: Sequence[str]) -> list[Kind]:
    """Kinds by name. Raises KeyError with the first that is not known."""
    return [KINDS[name] for name in names]
