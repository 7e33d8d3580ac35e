"""What rounding the output layer of one base was measured to cost, and whether that is little enough to serve."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from quantize.lm_head.rounding import FORMAT
from quantize.quality.figures import QualityFigures

# Tighter than what serving a base in bfloat16 costs, which nobody asks about (docs/quantisation-report.md: 0.0017
# nats, 98.0 %). Of each interval the worse end counts.
MAX_MEAN_KL_NATS = 0.001
MIN_TOP1_AGREEMENT = 0.98
MAX_PERPLEXITY_RATIO = 1.005
MIN_TOKENS = 1000


class LmHeadRecord(BaseModel):
    """The figures of a base with its output layer in 8 bits, against the same base with the stored one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    fingerprint: str
    format: int = FORMAT
    source: str
    """What the held-out text was."""
    quality: QualityFigures

    def problems(self) -> list[str]:
        """Why it may not be served so, a clause each; empty where it may."""
        figures = self.quality
        kl = _worse(figures.mean_kl_nats.value, figures.mean_kl_nats.high)
        ratio = _worse(figures.perplexity_ratio.value, figures.perplexity_ratio.high)
        same = _worse(figures.top1_agreement.value, figures.top1_agreement.low)
        found = []
        if figures.num_tokens < MIN_TOKENS:
            found.append(f"{figures.num_tokens:,} tokens are fewer than {MIN_TOKENS:,}")
        if not kl <= MAX_MEAN_KL_NATS:
            found.append(f"the KL divergence of up to {kl:.2g} nats is above {MAX_MEAN_KL_NATS}")
        if not same >= MIN_TOP1_AGREEMENT:
            found.append(
                f"the likeliest token is the same for {same:.1%} or more, which is below {MIN_TOP1_AGREEMENT:.0%}"
            )
        if not ratio <= MAX_PERPLEXITY_RATIO:
            found.append(f"the perplexity times up to {ratio:.4f} is above {MAX_PERPLEXITY_RATIO}")
        return found


def record_path(home: Path, fingerprint: str) -> Path:
    """Where the record of the base with this fingerprint lies."""
    return home / "quantize" / "lm-head-8" / f"{fingerprint}.json"


def write_record(record: LmHeadRecord, home: Path) -> Path:
    """Put the record in place, over an older one; raises OSError."""
    path = record_path(home, record.fingerprint)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(record.model_dump_json(indent=2), encoding="utf-8")
    partial.replace(path)
    return path


def read_record(home: Path, fingerprint: str) -> LmHeadRecord | None:
    """The record of that base and of the rounding as it is today; None where there is none that can be read."""
    try:
        text = record_path(home, fingerprint).read_text(encoding="utf-8")
        record = LmHeadRecord.model_validate_json(text)
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return record if (record.fingerprint, record.format) == (fingerprint, FORMAT) else None


def _worse(value: float, end: float | None) -> float:
    return value if end is None else end
