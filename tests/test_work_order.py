"""The order of work: it names files that are there, and parts the cores."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.work_order import LONGEST, cores_of, place_of, unit_of

PROJECT = Path(__file__).resolve().parents[1]


def test_every_file_that_is_named_is_there_and_named_once() -> None:
    named = [path for unit in LONGEST for path in unit]
    assert [path for path in named if not (PROJECT / path).is_file()] == []
    assert len(set(named)) == len(named)


def test_files_that_share_something_are_one_unit_and_others_are_their_own() -> None:
    unit = next(unit for unit in LONGEST if len(unit) > 1)
    assert {unit_of(f"{path}::test_it[a::b]") for path in unit} == {unit[0]}
    assert unit_of("tests/test_docs.py::test_it") == "tests/test_docs.py"


def test_what_takes_longest_begins_first() -> None:
    places = [place_of(f"{path}::test_it") for unit in LONGEST for path in unit]
    assert places == sorted(places)
    assert place_of("tests/test_docs.py::test_it") > places[-1]


@given(st.sets(st.integers(0, 300), min_size=1, max_size=64), st.integers(1, 8))
def test_the_cores_are_parted_and_none_is_left_over(cores: set[int], num_workers: int) -> None:
    shares = [cores_of(worker, num_workers, sorted(cores)) for worker in range(num_workers)]
    assert all(shares)
    if len(cores) >= num_workers:
        assert sorted(core for share in shares for core in share) == sorted(cores)
    assert cores_of(num_workers, num_workers, sorted(cores)) == shares[0]  # in the place of one that died
