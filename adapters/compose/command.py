"""`hotswap adapters compose`: several adapters joined into one. Light to import."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.errors import ExportError
from adapters.export.command import DEFAULT_PROMPTS, encode_prompts, read_settings
from adapters.name import parse_alias
from adapters.published import find_adapter

if TYPE_CHECKING:
    from adapters.export.report import ExportReport


def compose(
    adapters: Sequence[str],
    *,
    base: str,
    out: Path | None,
    name: str | None,
    weights: str | None,
    given: dict[str, Any],
    say: Callable[[str], None],
) -> ExportReport:
    """Join `adapters` (folders or published names) for `base` into the new folder `out`, or publish it as `name`.

    `weights` are numbers with commas between them, one for each adapter. `given` are flags of ExportSettings, None
    where not given. Raises HotswapError with the message for the user.
    """
    strengths = _read_weights(weights, len(adapters))
    settings = read_settings(given)
    if out is None and name is None:
        raise ExportError("Say where it goes: --out FOLDER, or --name NAME to publish it.")
    if name is not None:
        name = parse_alias(name)

    from adapters.compose.compose import compose_adapters
    from adapters.compose.part import read_parts
    from adapters.export.export import check_place
    from adapters.export.publish import check_publishable, publish_adapter
    from adapters.target import describe_target
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from bases.settings import BasesSettings

    home = BasesSettings().home
    if out is not None:
        check_place(out)
    if name is not None:
        check_publishable(home, name)
    found = [find_adapter(adapter, home=home) for adapter in adapters]
    resolved = resolve_base(base, home=home, progress=say)
    passport = read_passport(resolved, home=home, progress=say)
    say("Checking and reading the adapters")
    parts = read_parts(found, strengths, describe_target(resolved, passport))
    say(f"Joining them and trying the result on {resolved.name}")
    with tempfile.TemporaryDirectory(prefix="hotswap-compose-") as passing:
        report = compose_adapters(
            parts,
            base=resolved,
            passport=passport,
            folder=out or Path(passing) / "adapter",
            default_prompts=encode_prompts(DEFAULT_PROMPTS, resolved),
            settings=settings,
        )
        if name is not None:
            place = publish_adapter(report.folder, home=home, name=name)
            report = replace(report, folder=out or place)
    return report


def _read_weights(text: str | None, num_adapters: int) -> list[float]:
    if num_adapters < 2:
        raise ExportError(f"{num_adapters} adapters make nothing to join. Name two or more.")
    if text is None:
        return [1.0] * num_adapters
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != num_adapters or not all(math.isfinite(weight) and weight != 0 for weight in weights):
        raise ExportError(
            f"--weights {text!r}: expected {num_adapters} numbers other than zero with commas between them, one "
            "for each adapter, as in --weights 1,0.5."
        )
    return weights
