"""Puts a finished adapter where the gateway finds it: `<home>/adapters/<name>/<first 8 digits of the digest>`."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

from adapters.artefact import KNOWN_NAMES
from adapters.check import check_adapter
from adapters.errors import ExportError
from adapters.export.weights import sync_folder
from adapters.name import SHORT_DIGEST_LENGTH, parse_alias
from bases.disk import check_writable, sync_names

CARD_NAME = "README.md"


def check_publishable(home: Path, name: str) -> None:
    """Raise ExportError where nothing could be published as `name`, for whatever works long before it does."""
    place = home / "adapters" / parse_alias(name)
    try:
        check_writable(place)
    except OSError as error:
        raise ExportError(
            f"Nothing can be put into {place}: {error.strerror}. See that this user may write there, or set "
            "HOTSWAP_HOME to another place."
        ) from error


def publish_adapter(folder: Path, *, home: Path, name: str) -> Path:
    """Publish the exported adapter in `folder` as `name` and return where it lies; nothing is ever overwritten.

    Copied to a hidden folder beside its place, flushed, and put there by one rename: readers see a whole version
    or none. A version that is there already is left as it is and returned. Raises AdapterNameError for a name
    that adapters may not have, ExportError when the folder is no whole adapter or cannot be copied.
    """
    alias = parse_alias(name)
    report = check_adapter(folder, target=None)
    digest = report.facts.digest
    if not report.ok or digest is None:
        reasons = "; ".join(problem.message for problem in report.problems)
        raise ExportError(f"What lies in {folder} cannot be published: {reasons}")
    place = home / "adapters" / alias / digest[:SHORT_DIGEST_LENGTH]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=place.parent))
        try:
            for file in (*KNOWN_NAMES, CARD_NAME):
                if (folder / file).is_file():
                    shutil.copyfile(folder / file, unfinished / file)
            unfinished.chmod(0o755)
            sync_folder(unfinished)
            if not _rename_into(unfinished, place):
                _expect_same(place, digest)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ExportError(
            f"The adapter could not be put into {place.parent}: {error.strerror}. It is whole in {folder}."
        ) from error
    return place


def _rename_into(unfinished: Path, place: Path) -> bool:
    """Whether the folder was put in place; False when a version is there already."""
    if place.exists():
        return False
    try:
        unfinished.rename(place)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # somebody else was first
            return False
        raise
    sync_names(place.parent)
    return True


def _expect_same(place: Path, digest: str) -> None:
    found = check_adapter(place, target=None).facts.digest
    if found != digest:
        raise ExportError(
            f"{place} holds another adapter ({found or 'unreadable'}) than the one to publish ({digest}), and "
            "nothing is overwritten. Move it away and publish again."
        )
