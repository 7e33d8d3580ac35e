"""The passport of a base: one fingerprint over everything that decides its answers, and its architecture.

An adapter carries the fingerprint of the base it was trained on; serving it on another base is refused by
comparing passports part by part. Hashing reads every byte of the weights, so a passport is kept in
`<home>/passports/` under a key that changes when any file of the base changes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bases.architecture import ArchitectureFacts, read_architecture
from bases.folder import read_json_object
from bases.progress import Progress, log_progress
from bases.resolve import ResolvedBase
from bases.weights import hash_weights

_logger = logging.getLogger(__name__)

_FORMAT = 3  # raise when a part is computed differently: kept passports are then made anew
# Keys that a save by another version or from another place changes, and that change no answer.
_VOLATILE_CONFIG_KEYS = frozenset({"transformers_version", "quantization_config", "torch_dtype", "dtype"})
# transformers stores the last truncation and padding it was called with: state, not identity.
_VOLATILE_TOKENIZER_KEYS = frozenset({"truncation", "padding"})
_TOKENIZER_BEHAVIOUR = (
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "bos_token",
    "eos_token",
    "pad_token",
)
_SLOW_TOKENIZER_FILES = ("tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "added_tokens.json")
_THINK = ("<think>", "</think>")


class PassportParts(BaseModel):
    """sha256 (hex) of each thing that decides a base's answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = Field(description="All tensors by name, dtype, shape and bytes; independent of sharding.")
    config: str = Field(description="config.json without version, dtype and quantisation.")
    tokenizer: str = Field(description="Vocabulary, merges, rules and special tokens.")
    chat_template: str | None = Field(description="Text of the chat template; None without one.")
    quantisation: str | None = Field(description="quantization_config; None without one.")


class Passport(BaseModel):
    """What a base is, for comparing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Public name of the base.")
    fingerprint: str = Field(description="sha256 (hex) over the parts.")
    parts: PassportParts
    weight_bytes: int = Field(description="Size of all tensors in bytes.")
    facts: ArchitectureFacts
    reasoning: bool = Field(description="Whether answers may hold a <think>...</think> section.")


def read_passport(base: ResolvedBase, *, home: Path, progress: Progress = log_progress) -> Passport:
    """The passport of `base`, from the cache in `home` if the base's files have not changed since.

    Raises BaseInvalidError if weights or config are broken. A cache that cannot be read or written costs
    time, nothing else.
    """
    kept = home / "passports" / f"{_cache_key(base.path)}.json"
    passport = _load(kept)
    if passport is None:
        passport = _make(base, progress)
        _keep(passport, kept)
    # Another name for the same folder is the same base.
    return passport.model_copy(update={"name": base.name})


def _make(base: ResolvedBase, progress: Progress) -> Passport:
    progress(f"Fingerprinting the base {base.name}")
    config = read_json_object(base.path / "config.json")
    weights, weight_bytes = hash_weights(base.path)
    template = _chat_template(base.path)
    quantisation = config.get("quantization_config")
    parts = PassportParts(
        weights=weights,
        config=_hash_json(
            {k: v for k, v in config.items() if not k.startswith("_") and k not in _VOLATILE_CONFIG_KEYS}
        ),
        tokenizer=_hash_json(_tokenizer_identity(base.path)),
        chat_template=None if template is None else hashlib.sha256(template.encode()).hexdigest(),
        quantisation=None if quantisation is None else _hash_json(quantisation),
    )
    return Passport(
        name=base.name,
        fingerprint=_hash_json(parts.model_dump()),
        parts=parts,
        weight_bytes=weight_bytes,
        facts=read_architecture(base.path),
        reasoning=_is_reasoning(base.path, template),
    )


def _chat_template(folder: Path) -> str | None:
    """The default chat template: chat_template.jinja before tokenizer_config.json, as in transformers."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = _tokenizer_config(folder).get("chat_template")
    if isinstance(template, list):  # several named templates
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _tokenizer_identity(folder: Path) -> dict[str, Any]:
    """What decides how text becomes tokens, without formatting and without what saving changes."""
    settings = _tokenizer_config(folder)
    identity: dict[str, Any] = {
        key: _token_text(settings[key]) for key in _TOKENIZER_BEHAVIOUR if settings.get(key) is not None
    }
    if (folder / "tokenizer.json").is_file():
        identity["tokenizer.json"] = _rules_identity(read_json_object(folder / "tokenizer.json"))
        return identity
    for name in _SLOW_TOKENIZER_FILES:
        if (folder / name).is_file():
            identity[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return identity


def _rules_identity(rules: dict[str, Any]) -> dict[str, Any]:
    identity = {key: value for key, value in rules.items() if key not in _VOLATILE_TOKENIZER_KEYS}
    model = identity.get("model")
    if isinstance(model, dict):  # absent, null, empty and false mean the same, and each version picks one
        identity["model"] = {key: value for key, value in model.items() if value}
    added = identity.get("post_processor")
    if (
        isinstance(added, dict)
        and added.get("type") == "TemplateProcessing"
        and not added.get("special_tokens")
    ):
        # A template that adds no token does nothing; transformers 5 saves one where there was none.
        identity["post_processor"] = None
    return identity


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json_object(path) if path.is_file() else {}


def _token_text(value: Any) -> Any:
    """A special token is written as its text or as an object with flags, by version."""
    return value.get("content") if isinstance(value, dict) else value


def _is_reasoning(folder: Path, template: str | None) -> bool:
    """Whether the model thinks aloud between <think> and </think>.

    The template decides if it names both. Otherwise the vocabulary must hold both, and a template, if there
    is one, must deal with </think> (DeepSeek-R1's strips it): some models carry the two tokens unused.
    """
    if template is not None and all(tag in template for tag in _THINK):
        return True
    if template is not None and _THINK[1] not in template:
        return False
    return all(tag in _vocabulary(folder) for tag in _THINK)


def _vocabulary(folder: Path) -> set[str]:
    words: set[str] = set()
    if (folder / "tokenizer.json").is_file():
        rules = read_json_object(folder / "tokenizer.json")
        words |= {str(token.get("content")) for token in rules.get("added_tokens") or []}
        vocabulary = (rules.get("model") or {}).get("vocab")
        if isinstance(vocabulary, dict):
            words |= vocabulary.keys()
    added = _tokenizer_config(folder).get("added_tokens_decoder")
    if isinstance(added, dict):
        words |= {str(_token_text(token)) for token in added.values()}
    return words


def _cache_key(folder: Path) -> str:
    """sha256 (hex) over the folder's path, its files' names, sizes and times, and what reads them."""
    files = [
        (path.name, stat.st_size, stat.st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.is_file()
        for stat in [path.stat()]
    ]
    return _hash_json([_FORMAT, version("transformers"), str(folder), files])


def _load(path: Path) -> Passport | None:
    try:
        return Passport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _logger.warning("The kept passport %s cannot be read and is made anew: %s", path, error)
        return None


def _keep(passport: Passport, path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(passport.model_dump_json(indent=2), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        _logger.warning("The passport cannot be kept in %s, so the next start hashes again: %s", path, error)


def _hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
