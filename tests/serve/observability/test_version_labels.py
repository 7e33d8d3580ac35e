"""Places for labels: taken when first used, given back with the version, or by who was idle for longest."""

from __future__ import annotations

from serve.observability.version_labels import Pair, VersionLabels


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def labels(max_versions: int) -> tuple[VersionLabels, list[Pair], Clock]:
    dropped: list[Pair] = []
    clock = Clock()
    return VersionLabels(max_versions, dropped.append, idle_seconds=60, clock=clock), dropped, clock


def test_the_base_needs_no_place() -> None:
    made, _, _ = labels(0)
    assert made.pair(None) == ("base", "")
    assert made.pair("risk@1") == ("other", "other")


def test_whoever_finds_no_place_is_other_until_one_is_idle() -> None:
    made, dropped, clock = labels(2)
    assert made.pair("a@1") == ("a", "1")
    clock.now = 10
    assert made.pair("b@2") == ("b", "2")
    clock.now = 50
    assert made.pair("c@3") == ("other", "other")
    assert made.pair("a@1") == ("a", "1")
    clock.now = 71
    assert made.pair("c@3") == ("c", "3")
    assert dropped == [("b", "2")]
    assert made.pair("b@2") == ("other", "other")


def test_a_version_that_goes_gives_its_place_back() -> None:
    made, dropped, _ = labels(1)
    made.pair("a@1")
    made.keep({"a@1"})
    assert len(made) == 1
    made.keep({"a@2"})
    assert dropped == [("a", "1")]
    assert made.pair("a@2") == ("a", "2")


def test_one_version_that_goes_takes_nobody_else_along() -> None:
    made, dropped, _ = labels(2)
    made.pair("a@1")
    made.pair("a@2")
    made.drop("a@1")
    made.drop("b@1")  # never had a place
    assert dropped == [("a", "1")]
    assert len(made) == 1
