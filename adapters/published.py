"""From what the user wrote for an adapter to a folder: a folder, or a name that was published on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.config import CONFIG_NAME
from adapters.errors import AdapterNotFoundError
from adapters.name import SHORT_DIGEST_LENGTH, AdapterReference, parse_reference


@dataclass(frozen=True, slots=True)
class FoundAdapter:
    """An adapter's folder and what people call it: its published name, or its folder's."""

    name: str
    folder: Path


def find_adapter(text: str, *, home: Path) -> FoundAdapter:
    """The adapter that `text` names: a folder, else `risk`, `risk/ca967498` or `risk@ca967498` below `home`.

    Raises AdapterNameError for what is neither, AdapterNotFoundError where nothing is there or where a name alone
    could mean several versions.
    """
    folder = Path(text).expanduser()
    if (folder / CONFIG_NAME).is_file():
        folder = folder.resolve()
        is_version = len(folder.name) == SHORT_DIGEST_LENGTH and folder.parent.parent.name == "adapters"
        return FoundAdapter(folder.parent.name if is_version else folder.name, folder)
    if (folder / "config.json").is_file():
        raise AdapterNotFoundError(
            f"{text} holds a whole model, not an adapter. It is a base already: serve or quantise it with "
            "--base, or make an adapter of what it learned with `hotswap adapters export`."
        )
    if folder.is_absolute() or text.startswith(("~", ".")):
        raise AdapterNotFoundError(
            f"{text} holds no {CONFIG_NAME}: it is not the folder of an adapter. Give what save_pretrained wrote, "
            "or the name of a published adapter."
        )
    name, slash, digest = text.partition("/")
    reference = parse_reference(f"{name}@{digest}" if slash else text)
    return FoundAdapter(reference.name, _published(reference, home / "adapters" / reference.name))


def _published(reference: AdapterReference, versions: Path) -> Path:
    prefix = (reference.digest_prefix or "")[:SHORT_DIGEST_LENGTH]
    found = sorted(config.parent for config in versions.glob(f"{prefix}*/{CONFIG_NAME}"))
    if not found:
        raise AdapterNotFoundError(
            f"There is no adapter {str(reference)!r}: it is not a folder, and none of that name is in "
            f"{versions}. Give a folder, or train it with `hotswap train --name {reference.name}`."
        )
    if len(found) > 1:
        listed = ", ".join(f"{reference.name}/{folder.name}" for folder in found)
        raise AdapterNotFoundError(
            f"{str(reference)!r} has {len(found)} versions on this machine: {listed}. Name one of them."
        )
    return found[0]
