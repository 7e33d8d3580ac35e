"""What was measured stays, and only for what it was measured on."""

from __future__ import annotations

import pytest

from benchmarks.quantisation.errors import RecordError
from benchmarks.quantisation.figures import Machine, Measured
from benchmarks.quantisation.record import Record


def test_an_item_is_there_after_a_new_start(tmp_path):
    path = tmp_path / "deep" / "record.json"
    Record(path, Measured).put("one", "base a", Measured(value=1.5, low=1.0, high=2.0, count=3))
    again = Record(path, Measured)
    assert again.get("one", "base a") == Measured(value=1.5, low=1.0, high=2.0, count=3)
    assert list(again.all()) == ["one"]


def test_figures_of_another_base_do_not_count(tmp_path):
    record = Record(tmp_path / "record.json", Measured)
    record.put("one", "base a", Measured(value=1.0))
    assert record.get("one", "base b") is None
    assert record.get("one") is not None
    record.put("one", "base b", Measured(value=2.0))
    assert record.get("one", "base a") is None


def test_a_file_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "record.json"
    path.write_text("[1, 2")
    with pytest.raises(RecordError, match=r"record\.json is no record"):
        Record(path, Measured)


def test_an_item_in_another_form_is_named_with_its_field(tmp_path):
    path = tmp_path / "record.json"
    Record(path, Machine).put("one", "x", Machine(line="a machine"))
    with pytest.raises(RecordError, match=r"'one' in another form \(value"):
        Record(path, Measured).get("one")
