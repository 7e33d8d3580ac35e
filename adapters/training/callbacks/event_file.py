"""An event file of TensorBoard, written at once: its own writer is a thread, whose errors nobody can catch."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class EventFile:
    """A new file in `folder`; what is added is on its way to the disk when the call returns.

    Every method but `close` raises OSError.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        """With `purge_step`, TensorBoard hides what earlier files in `folder` hold from that step on."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns():019d}.{socket.gethostname()}.{os.getpid()}"
        self._stream = (folder / name).open("xb")
        self._records = RecordWriter(self._stream)
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._write(Event(step=purge_step, file_version="brain.Event:2"))
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def add_text(self, name: str, text: str) -> None:
        """Add a text."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import text as text_summary

        self._write(Event(summary=text_summary(name, text), step=0))

    def add_points(self, points: Mapping[str, float], step: int) -> None:
        """Add a point to each of these curves."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import scalar

        for name, value in points.items():
            self._write(Event(summary=scalar(name, value), step=step))

    def close(self) -> None:
        """Close the file; what finds no room any more is lost."""
        with contextlib.suppress(OSError):
            self._stream.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._records.flush()
