"""Bases whose tokenizer_config.json names a class that overrules their tokenizer.json, with the class put right.

DeepSeek's tokenizers are byte-level, and most of their folders call them "LlamaTokenizerFast". Up to version 4
transformers took such a name for a hint; from 5 on that class puts SentencePiece's rules in place of those in
tokenizer.json, so that every space is lost on the way in and out, without a word:
https://github.com/huggingface/transformers/issues/45488. It knows some families better by model type, and the
R1 distillations of Llama by their hub id, but not in a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from bases.disk import why_unwritten
from bases.errors import BaseConversionError
from bases.folder import read_json_object
from bases.progress import Progress

_CONFIG = "tokenizer_config.json"
_SENTENCEPIECE_CLASSES = frozenset({"LlamaTokenizer", "LlamaTokenizerFast"})
_RULES_AS_THEY_ARE = "PreTrainedTokenizerFast"


def right_tokenizer_class(folder: Path, *, home: Path, progress: Progress) -> Path:
    """`folder`, or where its tokenizer's class is wrong, a folder under `home` with the same files and a right one.

    The other files are links to those of `folder`, which stays as it is. Raises BaseConversionError where `home`
    cannot be written.
    """
    if not _is_misnamed(folder):
        return folder
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    identity = "\n".join(f"{path.resolve()} {path.stat().st_mtime_ns}" for path in files.values())
    place = (
        home / "bases" / "tokenizer-class" / hashlib.sha256(identity.encode()).hexdigest()[:16] / folder.name
    )
    if not place.is_dir():
        progress(
            f"{folder.name}: tokenizer_config.json calls a byte-level tokenizer "
            f"{read_json_object(folder / _CONFIG)['tokenizer_class']}, which would lose every space; "
            f"using it as tokenizer.json says, from {place}"
        )
        _link(files, place)
    return place


def _is_misnamed(folder: Path) -> bool:
    if not all((folder / name).is_file() for name in (_CONFIG, "tokenizer.json")):
        return False
    if read_json_object(folder / _CONFIG).get("tokenizer_class") not in _SENTENCEPIECE_CLASSES:
        return False
    return _has_byte_level(read_json_object(folder / "tokenizer.json").get("decoder"))


def _has_byte_level(rules: Any) -> bool:
    """Whether a decoder, or one of a sequence, is byte-level."""
    if not isinstance(rules, dict):
        return False
    return rules.get("type") == "ByteLevel" or any(map(_has_byte_level, rules.get("decoders") or ()))


def _link(files: dict[str, Path], place: Path) -> None:
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    config = {**read_json_object(files[_CONFIG]), "tokenizer_class": _RULES_AS_THEY_ARE}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    try:
        partial.mkdir(parents=True)
        for name, path in files.items():
            if name != _CONFIG:
                (partial / name).symlink_to(path.resolve())
        (partial / _CONFIG).write_text(text, encoding="utf-8")
        partial.rename(place)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if place.is_dir():  # another process was first
            return
        raise BaseConversionError(
            f"The base's tokenizer cannot be set right in {place}: {why_unwritten(error)}"
        ) from error
