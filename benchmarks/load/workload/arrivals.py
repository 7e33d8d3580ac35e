"""When requests are sent: computed from a seed before the first one is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.numbers_text import split_option

MAX_WORKERS = 4096
MAX_ARRIVALS = 1_000_000

_KINDS: dict[str, tuple[str, ...]] = {
    "closed": ("workers",),
    "poisson": ("rate",),
    "gamma": ("rate", "cv"),
    "constant": ("rate",),
    "burst": ("size", "period"),
    "ramp": ("from", "to"),
}


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One line of a trace: when, and what is asked."""

    at_seconds: float
    prompt_tokens: int | None
    max_tokens: int | None
    adapter: str | None


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A process of arrivals. Closed: so many workers, each sends its next request when the last one ended."""

    text: str  # as it was asked for
    kind: str
    values: tuple[float, ...] = ()
    trace: tuple[TraceLine, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether answers set the pace, instead of the clock."""
        return self.kind == "closed"

    @property
    def workers(self) -> int:
        """Workers of a closed loop."""
        return int(self.values[0])

    def times(self, seconds: float, seed: int) -> list[float]:
        """Seconds from the start at which requests are due, ascending, all before `seconds`.

        Poisson and gamma gaps are drawn as they are: the number of arrivals is random, as in life. (vLLM's
        benchmark stretches its gaps until their sum is the expected one.) Raises LoadOptionError for none.
        """
        draw = np.random.default_rng(seed)
        match self.kind:
            case "poisson":
                found = _gaps(draw, seconds, self.values[0], shape=1.0)
            case "gamma":
                rate, cv = self.values
                found = _gaps(draw, seconds, rate, shape=1.0 / cv**2)
            case "constant":
                found = np.arange(0.0, seconds, 1.0 / self.values[0])
            case "burst":
                size, period = self.values
                found = np.repeat(np.arange(0.0, seconds, period), int(size))
            case "ramp":
                found = _ramp(draw, seconds, *self.values)
            case _:
                found = np.array([line.at_seconds for line in self.trace if line.at_seconds < seconds])
        if not len(found):
            raise LoadOptionError(f"--arrivals {self.text} brings no request within {seconds:g} s")
        return [float(value) for value in found]


def parse_arrivals(text: str) -> Arrivals:
    """`closed:8`, `poisson:4`, `gamma:4,2`, `constant:4`, `burst:20,10`, `ramp:1,8` or `trace:FILE`.

    Rates are requests per second, periods seconds. Raises LoadOptionError.
    """
    if text.startswith("trace:"):
        return Arrivals(text, "trace", trace=tuple(_read_trace(Path(text.removeprefix("trace:")))))
    kind, values = split_option(text, option="--arrivals", known=_KINDS)
    zero = [name for name, value in zip(_KINDS[kind], values, strict=True) if value <= 0]
    if zero and not (kind == "ramp" and zero == ["from"]):
        raise LoadOptionError(f"--arrivals {text}: {', '.join(zero)} must be above 0")
    if kind in ("closed", "burst") and (values[0] != int(values[0]) or values[0] > MAX_WORKERS):
        raise LoadOptionError(f"--arrivals {text}: give a whole number up to {MAX_WORKERS}")
    return Arrivals(text, kind, tuple(values))


def _gaps(draw: np.random.Generator, seconds: float, rate: float, *, shape: float) -> Any:
    if rate * seconds > MAX_ARRIVALS:
        raise LoadOptionError(f"{rate:g} requests/s for {seconds:g} s are more than {MAX_ARRIVALS} requests")
    found: list[Any] = []
    at = 0.0
    while at < seconds:
        gaps = draw.gamma(shape, 1.0 / (rate * shape), size=max(64, int(rate * seconds)))
        found.append(at + np.cumsum(gaps))
        at = float(found[-1][-1])
    times = np.concatenate(found)
    return times[times < seconds]


def _ramp(draw: np.random.Generator, seconds: float, start: float, end: float) -> Any:
    """A Poisson process whose rate grows (or falls) evenly: thinned from one at the higher rate."""
    highest = max(start, end)
    times = _gaps(draw, seconds, highest, shape=1.0)
    rate = start + (end - start) * times / seconds
    return times[draw.random(len(times)) < rate / highest]


def _read_trace(path: Path) -> list[TraceLine]:
    """JSON lines: `at_seconds` (or `timestamp`), and if wanted `prompt_tokens`, `max_tokens`, `adapter`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LoadOptionError(f"the trace {str(path)!r} cannot be read: {error}") from None
    found: list[TraceLine] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_trace_line(json.loads(line)))
        except (ValueError, TypeError) as error:
            problems.append(f"line {number}: {error}")
    if problems:
        more = f"; and {len(problems) - 5} more lines" if len(problems) > 5 else ""
        raise LoadOptionError(f"the trace {str(path)!r} has bad lines: {'; '.join(problems[:5])}{more}")
    if not found:
        raise LoadOptionError(f"the trace {str(path)!r} holds no request")
    first = min(line.at_seconds for line in found)
    return sorted(
        (TraceLine(one.at_seconds - first, one.prompt_tokens, one.max_tokens, one.adapter) for one in found),
        key=lambda one: one.at_seconds,
    )


def _trace_line(fields: Any) -> TraceLine:
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    unknown = set(fields) - {"at_seconds", "timestamp", "prompt_tokens", "max_tokens", "adapter"}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} is unknown")
    at = fields.get("at_seconds", fields.get("timestamp"))
    if isinstance(at, bool) or not isinstance(at, int | float) or not np.isfinite(at):
        raise ValueError("at_seconds is missing or not a number")
    for name in ("prompt_tokens", "max_tokens"):
        value = fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} {value!r} is not a whole number of 1 or more")
    adapter = fields.get("adapter")
    if adapter is not None and not isinstance(adapter, str):
        raise ValueError(f"adapter {adapter!r} is not a name")
    return TraceLine(float(at), fields.get("prompt_tokens"), fields.get("max_tokens"), adapter)
