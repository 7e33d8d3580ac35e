"""What is said while layers are rounded."""

from __future__ import annotations

import pytest

from quantize.progress import PassProgress, duration


def test_the_time_left_follows_from_the_layers_that_were_computed() -> None:
    now, said = [0.0], list[str]()
    progress = PassProgress("Rounding", 12, said.append, clock=lambda: now[0])
    for _ in range(2):
        progress.skip()  # taken over in no time: no measure for the rest
    for _ in range(3):
        progress.start_layer()
        now[0] += 10.0
        progress.finish_layer()
    assert said == [
        "Rounding: layer 3 of 12",
        "Rounding: layer 4 of 12, about 1 min 30 s left",
        "Rounding: layer 5 of 12, about 1 min 20 s left",
    ]


def test_quick_layers_are_not_all_told() -> None:
    now, said = [0.0], list[str]()
    progress = PassProgress("Rounding", 100, said.append, clock=lambda: now[0])
    for _ in range(100):
        progress.start_layer()
        now[0] += 1.0
        progress.finish_layer()
    assert len(said) == 20
    assert said[-1] == "Rounding: layer 96 of 100, about 5 s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
