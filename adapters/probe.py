"""`hotswap_probe.json`: prompts whose answers are known from training, to be replayed after loading.

Written by our trainer, which has the base and the adapter in hand. The gateway replays each case and
compares: an adapter that does not move the logprobs away from the base's has no effect, and one that moves
them somewhere else than in training is not the adapter that was trained.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adapters.artefact import PROBE_NAME
from adapters.errors import AdapterFileError
from adapters.manifest import describe_validation_error
from adapters.strict_json import parse_json_object

MAX_PROBE_BYTES = 1024 * 1024

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Logprob = Annotated[float, Field(le=1e-3)]  # zero, but for rounding


class ProbeCase(BaseModel):
    """One prompt and a continuation: the adapter's greedy one, or any other, which is then scored as it stands.

    Tokens of which neither model is sure tell the most about an adapter's strength. All three lists have one
    entry per continued token. `adapter_logprobs` and `base_logprobs` are the natural logarithms of the
    probability of that same token, after the same preceding tokens, under the adapter and under the base alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    prompt_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=4096)]
    expected_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=256)]
    adapter_logprobs: list[Logprob]
    base_logprobs: list[Logprob]

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        expected = len(self.expected_token_ids)
        for name in ("adapter_logprobs", "base_logprobs"):
            if len(getattr(self, name)) != expected:
                raise ValueError(f"{name} must have {expected} entries, one for each expected token")
        return self


class Probe(BaseModel):
    """The file's content. `tolerance` is the largest difference of a logprob that still counts as equal.

    `dtype` is the precision the logprobs were computed in; another precision needs a wider tolerance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    base_fingerprint: Annotated[str, Field(min_length=1, max_length=256)]
    dtype: Annotated[str, Field(min_length=1, max_length=32)]
    tolerance: Annotated[float, Field(gt=0, le=10)]
    cases: Annotated[list[ProbeCase], Field(min_length=1, max_length=64)]


def write_probe(folder: Path, probe: Probe) -> Path:
    """Write the probe into `folder` in one step and return its path."""
    path = folder / PROBE_NAME
    partial = path.with_name(f".{PROBE_NAME}.{os.getpid()}")
    partial.write_text(probe.model_dump_json() + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def parse_probe(raw: bytes) -> Probe:
    """Read the file's bytes; raise AdapterFileError naming every field that is wrong."""
    values = parse_json_object(raw, what=PROBE_NAME)
    try:
        return Probe.model_validate(values)
    except ValidationError as error:
        raise AdapterFileError(f"{PROBE_NAME} is malformed: {describe_validation_error(error)}") from error


def read_probe(folder: Path) -> Probe | None:
    """The probe of a version in the store, or None where it has none."""
    path = folder / PROBE_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PROBE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AdapterFileError(f"{PROBE_NAME} cannot be read: {error.strerror}.") from error
    if len(raw) > MAX_PROBE_BYTES:
        raise AdapterFileError(f"{PROBE_NAME} is longer than {MAX_PROBE_BYTES} bytes.")
    return parse_probe(raw)
