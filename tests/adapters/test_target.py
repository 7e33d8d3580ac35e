"""What a lineage beside the weights says of the base that adapters are checked against."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.target import NOT_ROUNDED, describe_target
from bases.lineage import BaseStep, Lineage, ParentBase, write_lineage
from bases.passport import Passport, read_passport
from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import make_tiny_base


@pytest.fixture
def base(tmp_path: Path) -> tuple[ResolvedBase, Passport]:
    resolved = resolve_base(str(make_tiny_base(tmp_path / "tiny", hidden_size=32, heads=2)), home=tmp_path)
    return resolved, read_passport(resolved, home=tmp_path)


def quantised(parent: str, rounding: float | None) -> BaseStep:
    return BaseStep(
        kind="quantise",
        parent=ParentBase(fingerprint=parent, name=f"base {parent}"),
        scheme=f"scheme-{parent}",
        base_rounding=rounding,
    )


def test_a_base_without_a_lineage_is_not_rounded(base: tuple[ResolvedBase, Passport]) -> None:
    assert describe_target(*base).rounded == NOT_ROUNDED


def test_a_quantised_base_says_what_it_stands_in_for_and_how_far_it_was_rounded(
    base: tuple[ResolvedBase, Passport],
) -> None:
    merge = BaseStep(kind="merge", parent=ParentBase(fingerprint="m", name="base m"))
    write_lineage(base[0].path, Lineage(steps=(merge, quantised("a", 0.3), quantised("b", 0.4))))
    rounded = describe_target(*base).rounded
    assert rounded.originals == {"b": "base b", "a": "base a"}
    assert rounded.scheme == "scheme-b, scheme-a"
    assert rounded.rounding == pytest.approx(0.5)
    write_lineage(base[0].path, Lineage(steps=(quantised("a", 0.3), quantised("b", None))))
    assert describe_target(*base).rounded.rounding is None


def test_a_merged_base_stands_in_for_nothing(base: tuple[ResolvedBase, Passport]) -> None:
    merge = BaseStep(kind="merge", parent=ParentBase(fingerprint="m", name="base m"))
    write_lineage(base[0].path, Lineage(steps=(quantised("a", 0.3), merge)))
    assert describe_target(*base).rounded == NOT_ROUNDED
