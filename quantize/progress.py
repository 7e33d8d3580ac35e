"""How far a run is, with the time left; and silence from the libraries that would draw over it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from bases.progress import Progress

_SAY_SECONDS = 5.0
_LOG_LEVEL = "LLM_COMPRESSOR_LOG_LEVEL"
# Said of every run on a CPU, or of how we call it; nobody can do anything about them.
_EXPECTED = (
    "No accelerator available",
    "Calibration pipeline is set to",
    "No error metrics were collected",
    "Disabling tokenizer parallelism",
    "Optimized model is not saved",
)


class PassProgress:
    """One pass over the layers. Says at most every few seconds which layer it is at and how long is left."""

    def __init__(
        self, what: str, num_layers: int, say: Progress, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._num_layers, self._say, self._clock = what, num_layers, say, clock
        self._started: float | None = None
        self._done = 0
        self._first = 0
        self._said = float("-inf")

    def skip(self) -> None:
        """A layer was taken over from an earlier run: it counts as done, not as a measure of time."""
        self._done += 1
        self._first += 1

    def start_layer(self) -> None:
        """The next layer begins."""
        now = self._clock()
        if self._started is None:
            self._started = now
        if now - self._said < _SAY_SECONDS:
            return
        self._said = now
        self._say(f"{self._what}: layer {self._done + 1} of {self._num_layers}{self._left(now)}")

    def finish_layer(self) -> None:
        """The layer that began is done."""
        self._done += 1

    def _left(self, now: float) -> str:
        measured = self._done - self._first
        if self._started is None or measured == 0:
            return ""
        left = (now - self._started) / measured * (self._num_layers - self._done)
        return f", about {duration(left)} left"


def duration(seconds: float) -> str:
    """`seconds` for people: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def quiet_compressor() -> Iterator[list[str]]:
    """No bars and no log lines of llm-compressor inside; yields the warnings that it would have printed.

    Its log stays silent afterwards too: what it prints by itself is set up at its import, in this process.
    """
    _import_quietly()
    from llmcompressor.logger import logger
    from transformers.utils import logging as transformers_logging

    heard: list[str] = []

    def hear(message: Any) -> None:
        text = str(message).strip().removesuffix(" Set logging to DEBUG to view full list.")
        if message.record["level"].name == "WARNING" and text not in heard and not text.startswith(_EXPECTED):
            heard.append(text)

    logger.remove()
    sink = logger.add(hear, level="WARNING", format="{message}", backtrace=False, diagnose=False)
    tracing = logging.getLogger("torch.fx._symbolic_trace")
    level = tracing.level
    tracing.setLevel(logging.ERROR)  # warns that tracing is tracing
    bar_class = importlib.import_module("tqdm.std").tqdm
    drawn = bar_class.__init__
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()

    def not_drawn(bar: Any, *arguments: Any, **keywords: Any) -> None:
        drawn(bar, *arguments, **{**keywords, "disable": True})

    # tqdm's own switch, an environment variable, is read once at its import and does not bind a caller.
    bar_class.__init__ = not_drawn
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"llmcompressor\.|compressed_tensors\.")
            yield heard
    finally:
        bar_class.__init__ = drawn
        tracing.setLevel(level)
        with contextlib.suppress(ValueError):  # a run within this one took it away
            logger.remove(sink)
        if bars:
            transformers_logging.enable_progress_bar()


def _import_quietly() -> None:
    """llm-compressor sets up its log while it is imported, and writes the first line at once."""
    said = os.environ.get(_LOG_LEVEL)
    os.environ[_LOG_LEVEL] = said or "CRITICAL"
    try:
        importlib.import_module("llmcompressor")
    finally:
        if said is None:
            del os.environ[_LOG_LEVEL]
