"""A bar for people who watch, a line now and then for logs."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from adapters.training.schedule import RunClock

_LINE_SECONDS = 10.0


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows progress, loss, speed and the time left: a bar on a terminal, else a line every ten seconds.

    `say` takes complete lines. `console` is rich's, which is asked whether it is a terminal.
    """

    def __init__(
        self, clock: RunClock, *, say: Callable[[str], None], console: Any = None, now: Any = time.monotonic
    ) -> None:
        self.clock = clock
        self.say = say
        self._console = console
        self._now = now
        self._bar: Any = None
        self._task: Any = None
        self._said_at = 0.0
        self._logs: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put up the bar."""
        self._said_at = self._now()
        if not state.is_world_process_zero or self._console is None or not self._console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("[bold]training"), BarColumn(), TextColumn("{task.percentage:>3.0f}% {task.description}"),
            console=self._console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=1.0)
        self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Remember the newest figures."""
        self._logs.update(logs)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on."""
        if not state.is_world_process_zero:
            return
        if self._bar is not None:
            self._bar.update(
                self._task, completed=self.clock.progress(state.global_step), description=self._text(state)
            )
        elif self._now() - self._said_at >= _LINE_SECONDS:
            self._said_at = self._now()
            self.say(self._text(state))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Say how the evaluation went."""
        if state.is_world_process_zero and "eval_perplexity" in metrics:
            text = (
                f"step {state.global_step}: validation perplexity {metrics['eval_perplexity']:.4g}, "
                f"token accuracy {metrics['eval_token_accuracy']:.1%}"
            )
            if self._bar is not None:
                self._bar.console.print(text, highlight=False)
            else:
                self.say(text)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take down the bar."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, after an error too."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _text(self, state: Any) -> str:
        parts = [f"step {state.global_step}/{state.max_steps}"]
        if "loss" in self._logs:
            parts.append(f"loss {self._logs['loss']:.4f}")
        if "tokens_per_second" in self._logs:
            parts.append(f"{self._logs['tokens_per_second']:.0f} tok/s")
        left = self._seconds_left(state)
        if left is not None:
            parts.append(f"{_duration(left)} left")
        return ", ".join(parts)

    def _seconds_left(self, state: Any) -> float | None:
        done = self.clock.progress(state.global_step)
        if not done or not self.clock.elapsed_seconds:
            return None
        return self.clock.elapsed_seconds * (1.0 - done) / done


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
