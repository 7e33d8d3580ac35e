"""Ctrl-C and SIGTERM while training: the step is finished and saved first, so that nothing is lost."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHELLS_BASE = 128  # a process that a signal ended has this and the signal's number for an exit code


class Interruption(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint at the end of the step in which a signal came, and stops when it is written.

    Stands after Cadence in the list of callbacks, so that a run that is stopped is not taken for one that is over.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._signal: signal.Signals | None = None

    @contextmanager
    def heard(self, *, alone: bool) -> Iterator[None]:
        """Heed signals in the block and raise what they mean at its end: KeyboardInterrupt, SystemExit for SIGTERM.

        A second signal ends the block at once. With other processes (`alone` False) signals do what they always do:
        one process alone cannot save.
        """
        if not alone or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self._end()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Have the step saved."""
        if self._signal is not None:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop, now that it is."""
        if self._signal is not None:
            control.should_training_stop = True

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self._signal is not None:
            self._end()
        self._signal = signal.Signals(number)
        self.say("Stopping when this step is done and saved; once more to stop at once")

    def _end(self) -> None:
        if self._signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal is not None:
            raise SystemExit(_SHELLS_BASE + self._signal)
