"""Checks `hotswap bench` against a server whose delays are known, in closed and open loop.

`python -m benchmarks.truth` prints measured beside true figures. Exit codes: 0 all are within 2 %, 1 one is not or
nothing could be measured, 2 wrong usage. On a busy machine the server itself is slower than its
script.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.agreement.known_server import known_server
from benchmarks.entry import run_app
from benchmarks.load.bench import prepare
from benchmarks.load.client.sending import GENERATOR
from benchmarks.load.comparison import METRICS, figure_of
from benchmarks.load.run import RunResult
from benchmarks.load.settings import load_bench_settings
from benchmarks.server import running
from serve.build import RUNNING_AHEAD

TOLERANCE = 0.02
TTFT_SECONDS, TPOT_SECONDS, TOKENS = 0.5, 0.1, 9
E2E_SECONDS = TTFT_SECONDS + (TOKENS - 1) * TPOT_SECONDS
_WORKERS, _RATE = 8, 10.0
_SEQUENCES = 8  # of the small engine; twice what the gateway gives it are sent at once
PLACES = max(_SEQUENCES + 1, int(_SEQUENCES * RUNNING_AHEAD))
_STALL_SECONDS = 1.0
_STALL_RATE = 20.0
_READY_SECONDS = 120.0
# Limits that every answer keeps, that none does, and that only those do that need not wait for a place.
_WIDE = f"own:ttft={2 * TTFT_SECONDS:g},tpot={2 * TPOT_SECONDS:g}"
_NARROW = f"own:ttft={0.9 * TTFT_SECONDS:g},tpot={2 * TPOT_SECONDS:g}"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Case:
    """One load and what it must bring, by names of comparison.METRICS; seconds, or per second."""

    name: str
    server: str
    arrivals: str
    slo: str
    warmup_seconds: float
    seconds: float
    truth: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure beside what it should be."""

    case: str
    metric: str
    truth: float
    measured: float | None

    @property
    def error(self) -> float | None:
        """Relative; of a truth of 0 the measured value itself. None: nothing was measured."""
        if self.measured is None:
            return None
        return self.measured / self.truth - 1 if self.truth else self.measured

    @property
    def good(self) -> bool:
        """Whether it is within the tolerance."""
        return self.error is not None and abs(self.error) <= TOLERANCE


def cases(rounds: int) -> list[Case]:
    """`rounds` answers one after the other in each."""
    # The window of a closed loop begins and ends where no worker has a token, half a TTFT after all began anew.
    before, seconds = E2E_SECONDS + TTFT_SECONDS / 2, rounds * E2E_SECONDS
    latency = {"ttft_p50": TTFT_SECONDS, "tpot_p50": TPOT_SECONDS, "e2e_p50": E2E_SECONDS}
    rate = _WORKERS / E2E_SECONDS
    period = 2 * E2E_SECONDS + 0.4
    bursts = max(2, round(seconds / period))
    at_once = 2 * PLACES / period
    return [
        Case(
            f"closed loop of {_WORKERS}",
            "wide",
            f"closed:{_WORKERS}",
            _WIDE,
            before,
            seconds,
            {**latency, "req_s": rate, "output_tok_s": rate * TOKENS, "goodput": rate, "slo_attainment": 1.0},
        ),
        Case(
            f"open loop, {_RATE:g} per second",
            "wide",
            f"constant:{_RATE:g}",
            _WIDE,
            2 * E2E_SECONDS + TPOT_SECONDS / 2,  # the window begins and ends between two tokens
            float(round(seconds)),
            {**latency, "req_s": _RATE, "output_tok_s": _RATE * TOKENS, "goodput": _RATE},
        ),
        Case(
            "limits that no answer keeps",
            "wide",
            f"constant:{_RATE:g}",
            _NARROW,
            2 * E2E_SECONDS,
            4.0,
            {"goodput": 0.0, "slo_attainment": 0.0},
        ),
        Case(
            f"bursts of {2 * PLACES} on {PLACES} places",
            "narrow",
            f"burst:{2 * PLACES},{period:g}",
            _WIDE,
            period - 0.2,  # the window begins and ends when nothing is under way
            bursts * period,
            {
                "goodput": at_once / 2,
                "slo_attainment": 0.5,
                "output_tok_s": at_once * TOKENS,
                "ttft_p99": E2E_SECONDS + TTFT_SECONDS,
                "tpot_p50": TPOT_SECONDS,
            },
        ),
    ]


def readings(case: Case, figures: Mapping[str, Any]) -> list[Reading]:
    """Every figure of a case beside its truth."""
    return [
        Reading(case.name, metric, truth, figure_of(figures, METRICS[metric][0]))
        for metric, truth in case.truth.items()
    ]


def stall_generators(seconds: float) -> None:
    """Stop the processes that send, and let them go on after `seconds`."""
    sending = [child for child in psutil.Process().children() if GENERATOR in " ".join(child.cmdline())]
    for process in sending:
        process.send_signal(signal.SIGSTOP)
    threading.Timer(seconds, lambda: [process.send_signal(signal.SIGCONT) for process in sending]).start()


def run_stalled(url: str) -> RunResult:
    """A run whose client stood still for a while."""
    stalled: list[float] = []

    def at_two_seconds(now: dict[str, float]) -> None:
        if now["seconds"] >= 2.0 and not stalled:
            stalled.append(now["seconds"])
            stall_generators(_STALL_SECONDS)

    return _run(url, f"constant:{_STALL_RATE:g}", _WIDE, 1.0, 4.0, progress=at_two_seconds)


def _run(
    url: str,
    arrivals: str,
    slo: str,
    warmup_seconds: float,
    seconds: float,
    progress: Callable[[dict[str, float]], None] = lambda _: None,
) -> RunResult:
    settings = load_bench_settings(
        url=url,
        arrivals=arrivals,
        slo=slo,
        warmup_seconds=warmup_seconds,
        seconds=seconds,
        answer_tokens=str(TOKENS),
        prompt_tokens="8",
        adapters="none",
    )
    bench = prepare(settings)
    return bench.run(arrivals, bench.load.arrivals, progress=progress)


@app.command()
def measure(
    rounds: Annotated[
        int, typer.Option(min=2, help="Answers one after the other in each load, 1.3 s each.")
    ] = 15,
) -> None:
    """Measure a server with known delays, and one whose client stands still.

    Example: python -m benchmarks.truth
    """
    console = Console(stderr=True)
    found: list[Reading] = []
    with tempfile.TemporaryDirectory(prefix="hotswap-truth-") as folder:
        script = {"ttft_seconds": TTFT_SECONDS, "tpot_seconds": TPOT_SECONDS}
        specs = [
            known_server("wide", Path(folder) / "wide", script),
            known_server("narrow", Path(folder) / "narrow", script, max_num_seqs=_SEQUENCES),
        ]
        with running(specs, logs=Path(folder), ready_seconds=_READY_SECONDS) as servers:
            for case in cases(rounds):
                console.print(f"{case.name}, {case.seconds:.0f} s", highlight=False)
                url = servers[case.server].url
                run = _run(url, case.arrivals, case.slo, case.warmup_seconds, case.seconds)
                found += readings(case, run.figures)
                for finding in run.findings:
                    console.print(f"{finding.code}: {finding.message}", highlight=False, soft_wrap=True)
            console.print(f"a client that stands still for {_STALL_SECONDS:g} s", highlight=False)
            stalled = run_stalled(servers["wide"].url)
    _show(found)
    marked = not stalled.valid and any(finding.code == "client_late" for finding in stalled.findings)
    print(
        f"The run whose client stood still is {'invalid, as it should be' if marked else 'NOT marked invalid'}."
    )
    if not marked or not all(reading.good for reading in found):
        raise typer.Exit(1)


def _show(found: Sequence[Reading]) -> None:
    table = Table(title="Measured beside true", title_justify="left", box=None, pad_edge=False)
    for heading in ("load", "figure", "true", "measured", "off by", ""):
        table.add_column(heading, justify="left" if heading in ("load", "figure") else "right")
    for reading in found:
        error = "-" if reading.error is None else f"{reading.error:+.2%}"
        measured = "-" if reading.measured is None else f"{reading.measured:.4g}"
        verdict = "" if reading.good else f"beyond {TOLERANCE:.0%}"
        table.add_row(reading.case, reading.metric, f"{reading.truth:.4g}", measured, error, verdict)
    Console(file=sys.stdout, width=100).print(table)


if __name__ == "__main__":
    run_app(app, "truth")
