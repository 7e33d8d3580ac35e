"""What passes, and which record counts for which base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantize.lm_head.record import LmHeadRecord, read_record, record_path, write_record
from quantize.quality.figures import Figure, QualityFigures


def record(**changed: Any) -> LmHeadRecord:
    """One that passes, except for what is `changed` in its figures."""
    figures: dict[str, Any] = {
        "num_rows": 16,
        "num_tokens": 4000,
        "original_perplexity": Figure(value=12),
        "quantised_perplexity": Figure(value=12),
        "perplexity_ratio": Figure(value=1, low=0.999, high=1.001),
        "mean_kl_nats": Figure(value=0.0002, low=0.0001, high=0.0003),
        "p99_kl_nats": Figure(value=0.001),
        "top1_agreement": Figure(value=0.99, low=0.985, high=0.995),
        "seconds": 1,
    }
    return LmHeadRecord(
        base="smol", fingerprint="ab", source="text", quality=QualityFigures(**{**figures, **changed})
    )


def test_little_loss_passes() -> None:
    assert record().problems() == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"num_tokens": 999}, "999 tokens are fewer than 1,000"),
        (
            {"mean_kl_nats": Figure(value=0.0009, low=0.0008, high=0.0011)},
            "KL divergence of up to 0.0011 nats",
        ),
        ({"top1_agreement": Figure(value=0.985, low=0.979, high=0.99)}, "same for 97.9% or more"),
        ({"perplexity_ratio": Figure(value=1.004, low=1.002, high=1.006)}, "perplexity times up to 1.0060"),
        ({"mean_kl_nats": Figure(value=0.002)}, "KL divergence of up to 0.002 nats"),
    ],
)
def test_the_worse_end_of_each_interval_counts(changed: dict[str, Any], problem: str) -> None:
    [found] = record(**changed).problems()
    assert problem in found


def test_a_record_is_found_by_the_fingerprint_alone(tmp_path: Path) -> None:
    written = record()
    assert write_record(written, tmp_path) == record_path(tmp_path, "ab")
    assert read_record(tmp_path, "ab") == written
    assert read_record(tmp_path, "cd") is None
    write_record(written.model_copy(update={"fingerprint": "cd"}), tmp_path)
    record_path(tmp_path, "cd").replace(record_path(tmp_path, "ab"))
    assert read_record(tmp_path, "ab") is None  # of another base, in this one's place


def test_a_record_of_another_rounding_or_a_broken_one_is_none(tmp_path: Path) -> None:
    write_record(record().model_copy(update={"format": 0}), tmp_path)
    assert read_record(tmp_path, "ab") is None
    record_path(tmp_path, "ab").write_text("{", encoding="utf-8")
    assert read_record(tmp_path, "ab") is None
