"""What is known of bases before they are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bases.lineage import BaseStep, Lineage, ParentBase, write_lineage
from bases.tiny import make_tiny_base
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.quant_bases import NOT_MEASURED, find_bases, parse_bases
from quantize.quality.figures import Figure, QualityFigures

QUALITY = QualityFigures(
    num_rows=2,
    num_tokens=100,
    original_perplexity=Figure(value=10.0),
    quantised_perplexity=Figure(value=10.5),
    perplexity_ratio=Figure(value=1.05),
    mean_kl_nats=Figure(value=0.0321),
    p99_kl_nats=Figure(value=0.5),
    top1_agreement=Figure(value=0.912),
    seconds=1.0,
)


def test_a_base_may_name_its_number_format() -> None:
    assert parse_bases("default:float32, default,./a:b,org/name@main:bfloat16") == [
        ("default", "float32"),
        ("default", "auto"),
        ("./a:b", "auto"),
        ("org/name@main", "bfloat16"),
    ]


@pytest.mark.parametrize("text", ["", "default", "default,default", "default,default:auto", "default,"])
def test_fewer_than_two_bases_or_one_twice_are_refused(text: str) -> None:
    with pytest.raises(LoadOptionError, match="--bases"):
        parse_bases(text)


def quantised(folder: Path, parent: str, details: dict[str, Any]) -> str:
    make_tiny_base(folder)
    step = BaseStep(
        kind="quantise", parent=ParentBase(fingerprint="f", name=parent), scheme="gptq-w4a16", details=details
    )
    write_lineage(folder, Lineage(steps=(step,)))
    return str(folder)


def test_quality_is_what_quantising_left_in_the_folder_and_never_silent(tmp_path: Path) -> None:
    whole = {"quality": QUALITY.model_dump(mode="json")}
    original = str(make_tiny_base(tmp_path / "original"))
    wanted = [
        original,
        quantised(tmp_path / "ours", "original", whole),
        quantised(tmp_path / "of-another", "another", whole),
        quantised(tmp_path / "broken", "original", {"quality": {"perplexity": 1}}),
        str(make_tiny_base(tmp_path / "plain")),
    ]
    bases = find_bases([(reference, "auto") for reference in wanted], tmp_path)
    assert [base.scheme for base in bases] == [None, "gptq-w4a16", "gptq-w4a16", "gptq-w4a16", None]
    line = "perplexity x1.05, KL 0.0321 nats, top-1 91.2%"
    assert [base.quality for base in bases] == [
        "the original",
        line,
        f"{line} (against another)",
        NOT_MEASURED,
        NOT_MEASURED,
    ]
    weights = tmp_path / "original" / "model.safetensors"
    assert bases[0].disk_bytes == weights.stat().st_size
    assert bases[0].needed_bytes(1.0) - bases[0].needed_bytes(0.5) == 512 * 1024**2


def test_bases_of_one_name_are_told_apart_by_format_or_refused(tmp_path: Path) -> None:
    bases = find_bases([("scripted", "float32"), ("scripted", "auto")], tmp_path)
    assert [base.name for base in bases] == ["scripted float32", "scripted"]
    one, other = make_tiny_base(tmp_path / "a" / "same"), make_tiny_base(tmp_path / "b" / "same")
    with pytest.raises(LoadOptionError, match="called same"):
        find_bases([(str(one), "auto"), (str(other), "auto")], tmp_path)
