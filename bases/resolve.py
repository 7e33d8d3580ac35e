"""From what the user wrote after `--base` to a folder on this machine that can be served."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bases.embedded import EMBEDDED_NAME, materialise_embedded
from bases.errors import BaseInvalidError, BaseNotFoundError
from bases.folder import check_folder
from bases.hub import HUB_ID, download_base
from bases.progress import Progress, log_progress
from bases.tokenizer_class import right_tokenizer_class

_MADE_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9._-]*")
_DEFAULT_NAMES = frozenset({"default", EMBEDDED_NAME})


@dataclass(frozen=True)
class ResolvedBase:
    """A base on this machine that passed `check_folder`."""

    name: str
    """Short public name, safe in URLs and metric labels: what `/v1/models` calls the base."""
    reference: str
    """What the user wrote ("default" where nothing was)."""
    path: Path
    """Absolute folder with config, safetensors weights and tokenizer."""
    revision: str | None
    """Commit sha of a hub base; None for the others."""
    source: Literal["embedded", "folder", "hub"]


def resolve_base(
    reference: str | None,
    *,
    home: Path,
    revision: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress = log_progress,
) -> ResolvedBase:
    """Find the base that `reference` names: the embedded default, a folder, one made here, or a hub id.

    None, "default" and "smollm2-135m-instruct" are the embedded default. An existing folder is that folder. A name
    without slashes is a base that was merged or quantised into `made_folder(home)`.
    "org/name" and "org/name@revision" are hub ids; `revision` is another way to give theirs.
    Raises BaseNotFoundError, BaseInvalidError (with every problem of the folder), BaseConversionError.
    """
    if reference is None or reference in _DEFAULT_NAMES:
        _refuse_revision(reference or "default", revision)
        path = materialise_embedded(home, progress=progress)
        return ResolvedBase(EMBEDDED_NAME, reference or "default", path.absolute(), None, "embedded")
    folder = Path(reference).expanduser()
    made = made_folder(home) / reference
    if not folder.is_dir() and _MADE_NAME.fullmatch(reference) and made.is_dir():
        folder = made
    if folder.is_dir():
        _refuse_revision(reference, revision)
        folder = folder.resolve()
        check_folder(folder, trust_remote_code=trust_remote_code)
        path = right_tokenizer_class(folder, home=home.absolute(), progress=progress)
        return ResolvedBase(_public_name(folder.name), reference, path, None, "folder")
    return _resolve_hub(reference, folder, home, revision, trust_remote_code, progress)


def made_folder(home: Path) -> Path:
    """Where bases that were merged or quantised here lie, each in a folder of its own."""
    return home / "bases" / "made"


def _resolve_hub(
    reference: str,
    folder: Path,
    home: Path,
    revision: str | None,
    trust_remote_code: bool,
    progress: Progress,
) -> ResolvedBase:
    match = HUB_ID.fullmatch(reference)
    if match is None:
        found = "a file, not a folder" if folder.exists() else "not a folder on this machine"
        raise BaseNotFoundError(
            f"There is no base {reference!r}: it is {found}, not one that was made here, and not a hub id "
            f"(org/name or org/name@rev). Name a folder, a hub id, or leave it out for the embedded "
            f"{EMBEDDED_NAME}."
        )
    if revision and match["revision"] and revision != match["revision"]:
        raise BaseNotFoundError(
            f"{reference!r} names revision {match['revision']!r}, the setting {revision!r}: give one."
        )
    path, commit = download_base(
        match["repository"],
        revision=revision or match["revision"],
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    check_folder(path, trust_remote_code=trust_remote_code)
    name = _public_name(match["repository"].rpartition("/")[2].lower())
    path = right_tokenizer_class(path.absolute(), home=home.absolute(), progress=progress)
    return ResolvedBase(name, reference, path, commit, "hub")


def _refuse_revision(reference: str, revision: str | None) -> None:
    if revision:
        raise BaseInvalidError(
            f"A revision ({revision!r}) belongs to a hub id, but base {reference!r} is not one. Leave it out."
        )


def _public_name(raw: str) -> str:
    """`raw` with everything but letters, digits, dot, dash and underscore turned to dashes; never empty."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", raw).strip("-") or "base"
