"""TensorBoard reads what was written, also of a run that went on."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.training.callbacks.event_file import EventFile
from tests.full_disk import files_no_larger_than


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_every_point_is_there_before_the_file_is_closed(tmp_path: Path) -> None:
    file = EventFile(tmp_path)
    file.add_text("settings", "{}")
    for step in range(3):
        file.add_points({"loss": 0.5 * step, "rate": 1.0}, step)
    assert curves(tmp_path) == {
        "loss": [(0, 0.0), (1, 0.5), (2, 1.0)],
        "rate": [(0, 1.0), (1, 1.0), (2, 1.0)],
    }
    file.close()
    file.close()


def test_a_run_that_went_on_hides_what_the_first_wrote_from_there_on(tmp_path: Path) -> None:
    for first, last, value, purge in ((0, 4, 1.0, None), (2, 5, 2.0, 2)):
        file = EventFile(tmp_path, purge_step=purge)
        for step in range(first, last):
            file.add_points({"loss": value}, step)
        file.close()
    assert curves(tmp_path)["loss"] == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)]


def test_a_full_disk_is_said_at_once_and_what_was_written_can_be_read(tmp_path: Path) -> None:
    file = EventFile(tmp_path)
    file.add_points({"loss": 1.0}, 0)
    with pytest.raises(OSError, match="File too large"), files_no_larger_than(200):
        for step in range(1, 100):
            file.add_points({"loss": 1.0}, step)
    with files_no_larger_than(200):
        file.close()
    assert curves(tmp_path)["loss"][0] == (0, 1.0)
