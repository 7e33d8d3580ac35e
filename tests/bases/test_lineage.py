from __future__ import annotations

from pathlib import Path

import pytest

from bases.errors import BaseInvalidError
from bases.lineage import (
    LINEAGE_NAME,
    BaseStep,
    Lineage,
    ParentBase,
    extend_lineage,
    read_lineage,
    write_lineage,
)


def step(kind: str, parent: str) -> BaseStep:
    return BaseStep(kind=kind, parent=ParentBase(fingerprint=parent, name=f"base {parent}"))


def test_a_base_without_the_file_has_no_lineage(tmp_path: Path) -> None:
    assert read_lineage(tmp_path) is None


def test_what_was_written_is_read(tmp_path: Path) -> None:
    lineage = Lineage(steps=(step("merge", "a"), step("quantise", "b")))
    write_lineage(tmp_path, lineage)
    assert read_lineage(tmp_path) == lineage


def test_a_quantised_base_stands_in_for_what_it_was_quantised_from_and_no_further_than_a_merge() -> None:
    lineage = Lineage(steps=(step("merge", "a"), step("quantise", "b"), step("quantise", "c")))
    assert lineage.stands_in_for() == {"b": "base b", "c": "base c"}
    assert Lineage(steps=(step("quantise", "a"), step("merge", "b"))).stands_in_for() == {}


def test_a_base_whose_scales_were_moved_stands_in_for_none() -> None:
    moved = step("quantise", "b").model_copy(update={"moves_scales": True})
    assert Lineage(steps=(moved,)).stands_in_for() == {}
    assert Lineage(steps=(moved, step("quantise", "c"))).stands_in_for() == {"c": "base c"}


def test_a_step_is_added_to_what_the_parent_says(tmp_path: Path) -> None:
    assert extend_lineage(tmp_path, step("merge", "a")).steps == (step("merge", "a"),)
    write_lineage(tmp_path, Lineage(steps=(step("merge", "a"),)))
    assert [one.kind for one in extend_lineage(tmp_path, step("quantise", "b")).steps] == [
        "merge",
        "quantise",
    ]


@pytest.mark.parametrize("text", ['{"schema_version": 1, "steps": []}', '{"schema_version": 2}', '{"x": 1}'])
def test_a_malformed_file_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / LINEAGE_NAME).write_text(text)
    with pytest.raises(BaseInvalidError, match=r"malformed.*Remove it"):
        read_lineage(tmp_path)
