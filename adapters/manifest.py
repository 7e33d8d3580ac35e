"""`hotswap.json`: what our trainer writes next to the weights, so that the server knows what it got."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from adapters.artefact import (
    MANIFEST_NAME,
    PROBE_NAME,
    WEIGHTS_NAME,
    AdapterArtefact,
    read_artefact,
    read_weights_header,
)
from adapters.config import CONFIG_NAME, MAX_CONFIG_BYTES, parse_config
from adapters.digest import compute_digest, file_sha256
from adapters.errors import AdapterFileError
from adapters.report import Problem
from adapters.strict_json import parse_json_object

MAX_MANIFEST_BYTES = 1024 * 1024
HASHED_NAMES = (CONFIG_NAME, WEIGHTS_NAME, PROBE_NAME)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestBase(BaseModel):
    """The base an adapter was trained on, as its passport names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: Annotated[str, Field(min_length=1, max_length=256)]
    name: Annotated[str, Field(max_length=512)]


class Manifest(BaseModel):
    """The file's content. `files` maps a name to its plain sha256; `training` is the trainer's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    digest: Sha256
    base: ManifestBase
    files: dict[Literal["adapter_config.json", "adapter_model.safetensors", "hotswap_probe.json"], Sha256]
    created_at: AwareDatetime
    libraries: dict[str, str] = Field(default_factory=dict)
    training: dict[str, JsonValue] = Field(default_factory=dict)


def build_manifest(
    folder: Path,
    *,
    base_fingerprint: str,
    base_name: str,
    libraries: Mapping[str, str],
    training: Mapping[str, JsonValue] | None = None,
) -> Manifest:
    """Describe the finished adapter in `folder`; raise AdapterFileError when it is not one."""
    with read_artefact(folder) as artefact:
        if artefact.problems:
            raise AdapterFileError("; ".join(problem.message for problem in artefact.problems))
        weights = artefact.files[WEIGHTS_NAME]
        config = parse_config(artefact.files[CONFIG_NAME].read_all(max_bytes=MAX_CONFIG_BYTES))
        return Manifest(
            digest=compute_digest(weights, read_weights_header(weights), config),
            base=ManifestBase(fingerprint=base_fingerprint, name=base_name),
            files={
                name: file_sha256(artefact.files[name]) for name in HASHED_NAMES if name in artefact.files
            },
            created_at=datetime.now(UTC),
            libraries=dict(libraries),
            training=dict(training or {}),
        )


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest into `folder` in one step and return its path."""
    path = folder / MANIFEST_NAME
    partial = path.with_name(f".{MANIFEST_NAME}.{os.getpid()}")
    partial.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def parse_manifest(raw: bytes) -> Manifest:
    """Read the file's bytes; raise AdapterFileError naming every field that is wrong."""
    values = parse_json_object(raw, what=MANIFEST_NAME)
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise AdapterFileError(f"{MANIFEST_NAME} is malformed: {describe_validation_error(error)}") from error


def verify_manifest(manifest: Manifest, artefact: AdapterArtefact, *, digest: str | None) -> list[Problem]:
    """Compare the manifest with the files and, where it is known, with the digest computed from them."""
    problems: list[Problem] = []
    for name in HASHED_NAMES:
        file, expected = artefact.files.get(name), manifest.files.get(name)  # type: ignore[call-overload]
        if file is None and expected is None:
            continue
        found = file_sha256(file) if file is not None else "no such file"
        if found != expected:
            problems.append(
                Problem(
                    "hash_mismatch",
                    f"{name} is not the file that the manifest describes: sha256 {found}, "
                    f"{MANIFEST_NAME} says {expected or 'nothing about it'}. Copy the adapter again, "
                    f"or remove {MANIFEST_NAME} if the change was meant.",
                    name,
                )
            )
    if not problems and digest is not None and digest != manifest.digest:
        problems.append(
            Problem(
                "hash_mismatch",
                f"The adapter's digest is {digest}, {MANIFEST_NAME} says {manifest.digest}. "
                "The manifest was edited or written by another version of Hotswap.",
                MANIFEST_NAME,
            )
        )
    return problems


def describe_validation_error(error: ValidationError) -> str:
    """The wrong fields and why, in one line, without the input's values."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}" for item in details[:5]]
    more = len(details) - len(parts)
    text = "; ".join(parts) + (f"; and {more} more" if more else "")
    return ascii(text)[1:-1]
