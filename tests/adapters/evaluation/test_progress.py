"""In a log an evaluation says now and then how far it is."""

from __future__ import annotations

from adapters.evaluation.progress import line_progress


def test_a_line_every_ten_seconds_and_none_of_a_quick_stage():
    said: list[str] = []
    seconds = [0.0]
    stage = line_progress(said.append, now=lambda: seconds[0])
    advance = stage("asking the base")
    for seconds[0], done in ((3.0, 10), (9.9, 20), (10.0, 30), (15.0, 40), (21.0, 1500)):
        advance(done, 2000)
    assert said == ["asking the base: 30 of 2,000", "asking the base: 1,500 of 2,000"]
    advance = stage("asking the adapter")
    seconds[0] = 30.0
    advance(2000, 2000)
    assert len(said) == 2
