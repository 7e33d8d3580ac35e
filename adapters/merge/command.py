"""`hotswap adapters merge`: a base with an adapter merged in. Light to import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adapters.errors import MergeError
from adapters.export.command import DEFAULT_PROMPTS, encode_prompts
from adapters.manifest import describe_validation_error
from adapters.merge.settings import MergeSettings
from adapters.probe import read_probe
from adapters.published import find_adapter
from bases.disk import check_writable

if TYPE_CHECKING:
    from adapters.merge.report import MergeReport


def merge(
    adapter: str,
    *,
    base: str,
    out: Path | None,
    initial: Path | None,
    given: dict[str, Any],
    say: Callable[[str], None],
) -> MergeReport:
    """Merge `adapter` (a folder or a published name) into `base`, in the new folder `out`.

    Without `out` it goes to `<home>/bases/made/<base>-<adapter>`. `initial` is the adapter before the first step,
    for initialisations that change the base. `given` are flags of MergeSettings, None where not given. Raises
    HotswapError with the message for the user.
    """
    try:
        settings = MergeSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise MergeError(f"The settings of the merge are wrong: {describe_validation_error(error)}") from None

    from adapters.merge.fit import check_fit
    from adapters.merge.merge import merge_adapter
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from bases.settings import BasesSettings

    if out is not None:
        _check_new(out)
    home = BasesSettings().home
    found = find_adapter(adapter, home=home)
    resolved = resolve_base(base, home=home, progress=say)
    folder = out or home / "bases" / "made" / f"{resolved.name}-{found.name}"
    _check_new(folder)
    passport = read_passport(resolved, home=home, progress=say)
    fitting = check_fit(found, resolved, passport)
    probe = read_probe(found.folder)
    asked = [case.prompt_token_ids for case in probe.cases] if probe is not None else []
    return merge_adapter(
        fitting,
        base=resolved,
        passport=passport,
        folder=folder,
        prompts=[*asked[: settings.prompts // 2], *encode_prompts(DEFAULT_PROMPTS, resolved), *asked],
        settings=settings,
        initial_adapter_folder=initial,
        progress=say,
    )


def _check_new(folder: Path) -> None:
    """Raise MergeError for a folder that is there or cannot be made."""
    try:
        if folder.exists():
            raise MergeError(
                f"{folder} exists, and nothing is overwritten. Remove it, or name another --out."
            )
        check_writable(folder.parent)
    except OSError as error:
        raise MergeError(
            f"{folder} cannot be made: {error.strerror}. Name another place with --out."
        ) from error
