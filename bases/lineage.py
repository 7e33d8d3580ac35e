"""`hotswap_base.json`: what a base that Hotswap made was made from, beside its weights.

A quantised base is another base: its fingerprint differs. This file says which base it stands in for, so that an
adapter of the original can be recognised, and how the two were found to differ.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from bases.errors import BaseInvalidError
from bases.folder import read_json_object

LINEAGE_NAME = "hotswap_base.json"

Fingerprint = Annotated[str, Field(min_length=1, max_length=256)]


class ParentBase(BaseModel):
    """The base that a step started from, as its passport names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: Fingerprint
    name: Annotated[str, Field(max_length=512)]


class BaseStep(BaseModel):
    """One thing that was done to a base. `details` are for people and reports; nothing is decided by them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["merge", "quantise"]
    parent: ParentBase
    scheme: str | None = Field(default=None, description="Name of the scheme, where it was quantised.")
    adapter: str | None = Field(default=None, description="name@digest of the adapter that was merged in.")
    base_rounding: float | None = Field(
        default=None,
        ge=0,
        description=(
            "How far quantising moved the base's own log-odds, root mean square over tokens that the original "
            "would say (as serve/lifecycle/verdict.py measures it); None: not measured."
        ),
    )
    moves_scales: bool = Field(
        default=False,
        description=(
            "Whether scales were moved between layers (SmoothQuant, AWQ): layers then see other inputs, and an "
            "adapter of the parent does not fit."
        ),
    )
    details: dict[str, JsonValue] = Field(default_factory=dict)


class Lineage(BaseModel):
    """All steps, the first one first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    steps: Annotated[tuple[BaseStep, ...], Field(min_length=1)]

    def stands_in_for(self) -> dict[str, str]:
        """Fingerprint -> name of the bases that this one is a rounded form of, so that their adapters fit it.

        A merge makes another base, and so does moving scales between layers.
        """
        found: dict[str, str] = {}
        for step in reversed(self.steps):
            if step.kind != "quantise" or step.moves_scales:
                break
            found[step.parent.fingerprint] = step.parent.name
        return found

    def followed_by(self, step: BaseStep) -> Lineage:
        """The lineage with one more step."""
        return self.model_copy(update={"steps": (*self.steps, step)})


def extend_lineage(parent_folder: Path, step: BaseStep) -> Lineage:
    """The lineage of what `step` makes of the base in `parent_folder`. Raises BaseInvalidError."""
    before = read_lineage(parent_folder)
    return Lineage(steps=(step,)) if before is None else before.followed_by(step)


def read_lineage(folder: Path) -> Lineage | None:
    """What the base in `folder` was made from; None where no file says so. Raises BaseInvalidError."""
    path = folder / LINEAGE_NAME
    if not path.is_file():
        return None
    try:
        return Lineage.model_validate(read_json_object(path))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        raise BaseInvalidError(
            f"{path} is malformed ({wrong}). Remove it to use the base without it."
        ) from error


def write_lineage(folder: Path, lineage: Lineage) -> Path:
    """Write the file into `folder` in one step and return its path."""
    path = folder / LINEAGE_NAME
    partial = path.with_name(f".{LINEAGE_NAME}.{os.getpid()}")
    partial.write_text(lineage.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return path
