"""An adapter as a trainer leaves it, on a tiny base, and the ways in which it can be something else afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapters.artefact import MANIFEST_NAME, PROBE_NAME, WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.export.probe_writer import make_probe
from adapters.manifest import build_manifest, write_manifest
from adapters.probe import write_probe
from adapters.tiny import make_tiny_adapter
from bases.passport import read_passport
from bases.resolve import resolve_base
from tests.adapters.conftest import load_tensors, write_tensors

TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj")
RANK, ALPHA = 4, 8
PROMPTS = (
    "The train leaves",
    "When does the shop open on Sundays?",
    "def main():",
    "Dear customer",
    "A long time ago there was a king who had three sons and no daughter",
    "1, 2, 3, 4,",
)

Spoil = Callable[[Path], None]


def train(folder: Path, base: Path, *, home: Path, seed: int) -> Path:
    """Random weights large enough to be seen, with a probe and a manifest, as the trainer writes them."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    passport = read_passport(resolve_base(str(base), home=home), home=home)
    make_tiny_adapter(
        folder,
        linear_modules=passport.facts.linear_modules,
        rank=RANK,
        alpha=ALPHA,
        targets=TARGETS,
        scale=0.04,
        seed=seed,
        base_name=base.name,
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    probe = make_probe(
        PeftModel.from_pretrained(model, folder).eval(),
        prompts=[tokenizer(prompt)["input_ids"] for prompt in PROMPTS],
        fingerprint=passport.fingerprint,
        num_cases=len(PROMPTS),
        num_tokens=16,
        end_token_ids=(),
    )
    write_probe(folder, probe)
    claim_base(folder, passport.fingerprint, base.name)
    return folder


def claim_base(folder: Path, fingerprint: str, name: str) -> None:
    """Say in probe and manifest that the adapter belongs to that base, whatever it belongs to."""
    path = folder / PROBE_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_fingerprint": fingerprint}))
    write_manifest(folder, build_manifest(folder, base_fingerprint=fingerprint, base_name=name, libraries={}))


def copy(folder: Path, to: Path, *spoils: Spoil) -> Path:
    """A copy of an adapter, spoiled."""
    shutil.copytree(folder, to)
    for spoil in spoils:
        spoil(to)
    return to


def without_manifest(folder: Path) -> None:
    (folder / MANIFEST_NAME).unlink()


def without_probe(folder: Path) -> None:
    (folder / PROBE_NAME).unlink()


def config(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / CONFIG_NAME
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def tensors(change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Spoil:
    def spoil(folder: Path) -> None:
        write_tensors(folder / WEIGHTS_NAME, dict(change(load_tensors(folder))))

    return spoil


def each(change: Callable[[str, Any], Any]) -> Spoil:
    return tensors(lambda found: {name: change(name, value) for name, value in found.items()})


def renamed(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name.replace("q_proj", "query"): value for name, value in found.items()}


def with_nan(name: str, value: Any) -> Any:
    value = value.copy()
    value.flat[3] = float("nan")
    return value


def layers_exchanged(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of the first layer in the second and the other way round."""
    names = {name: name.replace(".layers.0.", ".layers.#.") for name in found}
    names = {name: new.replace(".layers.1.", ".layers.0.") for name, new in names.items()}
    return {new.replace(".layers.#.", ".layers.1."): found[name] for name, new in names.items()}


def rows_shuffled(name: str, value: Any) -> Any:
    return value[::-1].copy() if name.endswith("down_proj.lora_B.weight") else value


def cut_off(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: len(raw) * 2 // 3])

    return spoil


def probe_of(other: Path) -> Spoil:
    def spoil(folder: Path) -> None:
        shutil.copyfile(other / PROBE_NAME, folder / PROBE_NAME)

    return spoil
