"""The bases that are set side by side: where they are, how large, and what is known of their quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from bases.lineage import BaseStep, read_lineage
from bases.weights import weight_files
from benchmarks.gateway import ServedBase, find_base
from benchmarks.load.errors import LoadOptionError
from benchmarks.quantisation.served import server_bytes
from quantize.quality.figures import QualityFigures
from serve.settings import ServeSettings

AUTO = "auto"
NOT_MEASURED = "not measured"
_ORIGINAL = "the original"
_DTYPES: tuple[str, ...] = get_args(ServeSettings.model_fields["dtype"].annotation)
# How much larger weights get in memory: kernels have layouts of their own; bfloat16 on disk doubles in float32.
_QUANTISED_GROWTH, _PLAIN_GROWTH = 1.5, 2.2


@dataclass(frozen=True, slots=True)
class QuantBase:
    """One base in one number format. `name` is unique among those that are compared."""

    name: str
    served: ServedBase
    dtype: str
    scheme: str | None  # None: not quantised, as far as the folder says
    disk_bytes: int | None  # of the weights' files; None: it has none
    quality: str  # a line, for people
    figures: QualityFigures | None

    def needed_bytes(self, kv_cache_gib: float) -> int:
        """A generous guess at what its gateway takes."""
        growth = _PLAIN_GROWTH if self.scheme is None else _QUANTISED_GROWTH
        return server_bytes(growth * (self.disk_bytes or 0), kv_cache_gib)


def parse_bases(text: str) -> list[tuple[str, str]]:
    """`default,PATH,default:float32`: (base, number format), "auto" where none is named. Raises LoadOptionError."""
    found = [parse_base(part.strip()) for part in text.split(",") if part.strip()]
    if len(found) < 2:
        raise LoadOptionError(
            f"--bases {text!r}: give two bases or more, e.g. default,PATH or default:float32,default:bfloat16"
        )
    if len(set(found)) != len(found):
        raise LoadOptionError(f"--bases {text!r} names one of them twice")
    return found


def parse_base(text: str) -> tuple[str, str]:
    """`default` or `default:float32`: (base, number format), "auto" where none is named."""
    reference, colon, dtype = text.rpartition(":")
    return (reference, dtype) if colon and dtype in _DTYPES else (text, AUTO)


def find_bases(wanted: Sequence[tuple[str, str]], folder: Path) -> list[QuantBase]:
    """Each of them, the first as what the others are set against; `folder` is for a base that is made.

    Raises BaseNotFoundError, BaseInvalidError, and LoadOptionError for two that would have the same name.
    """
    found: list[QuantBase] = []
    for number, (reference, dtype) in enumerate(wanted):
        served = find_base(reference, folder / f"base-{number}")
        step = _last_step(served.folder)
        quality, figures = _quality(step, first=found[0] if found else None)
        found.append(
            QuantBase(
                name=served.name if dtype == AUTO else f"{served.name} {dtype}",
                served=served,
                dtype=dtype,
                scheme=step.scheme if step is not None and step.kind == "quantise" else None,
                disk_bytes=_disk_bytes(served.folder),
                quality=quality,
                figures=figures,
            )
        )
    names = [base.name for base in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LoadOptionError(f"two of the bases are called {', '.join(twice)}; rename a folder")
    return found


def _disk_bytes(folder: Path | None) -> int | None:
    return None if folder is None else sum(file.stat().st_size for file in weight_files(folder))


def _last_step(folder: Path | None) -> BaseStep | None:
    lineage = read_lineage(folder) if folder is not None else None
    return lineage.steps[-1] if lineage is not None else None


def _quality(step: BaseStep | None, *, first: QuantBase | None) -> tuple[str, QualityFigures | None]:
    """(a line, the figures) that `hotswap quantize` left in the folder."""
    if step is None or step.kind != "quantise":
        return _ORIGINAL if first is None else NOT_MEASURED, None
    try:
        figures = QualityFigures.model_validate(step.details.get("quality"))
    except ValidationError:
        return NOT_MEASURED, None
    line = (
        f"perplexity x{figures.perplexity_ratio.value:.4g}, KL {figures.mean_kl_nats.value:.3g} nats, "
        f"top-1 {figures.top1_agreement.value:.1%}"
    )
    # What it is set against here may be another base than the one that it was measured against.
    other = first is not None and step.parent.name != first.served.name
    return f"{line} (against {step.parent.name})" if other else line, figures
