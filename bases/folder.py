"""Is this folder a base that can be served? Everything that is wrong with it, at once; no weights loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bases.errors import BaseInvalidError
from bases.weights import weight_files

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json")
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth")
_CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; BaseInvalidError if it is missing or anything else than an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseInvalidError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BaseInvalidError(f"{path} holds a JSON {type(value).__name__}, not an object.")
    return value


def check_folder(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Raise one BaseInvalidError that lists every problem of `folder` as a base; return if there is none.

    Wanted: config.json of a causal language model, safetensors weights (never pickle: loading it runs code),
    a tokenizer. `trust_remote_code` allows a config that names Python files of its own (`auto_map`).
    """
    problems = [
        *_config_problems(folder, trust_remote_code),
        *_weight_problems(folder),
        *_tokenizer_problems(folder),
    ]
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise BaseInvalidError(f"{folder} cannot be served as a base:\n{listed}")


def _config_problems(folder: Path, trust_remote_code: bool) -> list[str]:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            return ["config.json is missing, adapter_config.json is there: this is an adapter, not a base"]
        return ["config.json is missing"]
    try:
        config = read_json_object(folder / "config.json")
    except BaseInvalidError as error:
        return [str(error)]
    problems = []
    if "auto_map" in config and not trust_remote_code:
        problems.append(
            "config.json names Python code of its own (auto_map), which would run on this machine; "
            "read that code first, then allow it with trust_remote_code"
        )
    architectures = config.get("architectures")
    if architectures and not any(str(name).endswith(_CAUSAL_SUFFIXES) for name in architectures):
        problems.append(f"architectures is {architectures}: not a causal language model")
    return problems


def _weight_problems(folder: Path) -> list[str]:
    try:
        files = weight_files(folder)
    except BaseInvalidError as error:
        return [str(error)]
    if files:
        return [
            f"weights file {file.name} is listed in the index but missing"
            for file in files
            if not file.is_file()
        ]
    pickles = sorted(path.name for pattern in PICKLE_PATTERNS for path in folder.glob(pattern))
    if pickles:
        return [
            f"its weights are pickle files ({', '.join(pickles)}), which run code when loaded; "
            "convert them to safetensors first (save_pretrained in transformers does)"
        ]
    return ["weights (*.safetensors) are missing"]


def _tokenizer_problems(folder: Path) -> list[str]:
    present = any((folder / name).is_file() for name in TOKENIZER_FILES)
    legacy = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    if present or legacy:
        return []
    return [f"a tokenizer is missing ({', '.join(TOKENIZER_FILES)}, or vocab.json with merges.txt)"]
