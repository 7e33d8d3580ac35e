"""Writes the merged weights with everything else that makes a base of them, taken over bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from adapters.training.base_model import quiet_loading
from bases.folder import PICKLE_PATTERNS, read_json_object
from bases.lineage import LINEAGE_NAME
from bases.weights import INDEX_FILE

_CONFIG = "config.json"
# The README of the base tells of the base; the rest of these are its weights, and what is written anew.
_LEFT_OUT = (
    _CONFIG,
    LINEAGE_NAME,
    INDEX_FILE,
    "README.md",
    "*.safetensors",
    "*.gguf",
    "*.index.json",
    *PICKLE_PATTERNS,
)
# A second set of chat templates lies in a folder.
_FOLDERS = ("additional_chat_templates",)


def write_checkpoint(model: Any, folder: Path, *, parent: Path, dtype: str, untied: bool) -> None:
    """Write the plain transformers model `model` into the empty `folder`; the rest comes from the base in `parent`.

    The parent's config stays as it is, but for the type of the weights and, where `untied`, for the tie.
    """
    with quiet_loading():
        model.save_pretrained(folder)
    for path in folder.glob("*.json"):  # transformers writes its own form of these
        if path.name != INDEX_FILE:
            path.unlink()
    for path in parent.iterdir():
        if path.is_file() and not any(path.match(pattern) for pattern in _LEFT_OUT):
            shutil.copyfile(path, folder / path.name)
    for name in _FOLDERS:
        if (parent / name).is_dir():
            shutil.copytree(parent / name, folder / name)
    _write_config(folder, parent, dtype, untied)


def _write_config(folder: Path, parent: Path, dtype: str, untied: bool) -> None:
    values = read_json_object(parent / _CONFIG)
    before = json.dumps(values)
    for part in (values, values.get("text_config")):
        if isinstance(part, dict):
            for key in ("dtype", "torch_dtype"):
                if key in part:
                    part[key] = dtype
            if untied and "tie_word_embeddings" in part:
                part["tie_word_embeddings"] = False
    if untied:
        values["tie_word_embeddings"] = False
    if not ("dtype" in values or "torch_dtype" in values) and dtype != "float32":
        values["dtype"] = dtype
    if json.dumps(values) == before:
        shutil.copyfile(parent / _CONFIG, folder / _CONFIG)
    else:
        (folder / _CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
