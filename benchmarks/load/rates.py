"""Several rates in one measurement: a sweep over them, and a search for the highest that keeps the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.load.bench import Bench
from benchmarks.load.errors import LoadOptionError, NothingMeasuredError
from benchmarks.load.figures.figures import reached_req_s
from benchmarks.load.run import RunResult
from benchmarks.load.workload.arrivals import Arrivals, parse_arrivals

Progress = Callable[[dict[str, float]], None]
Say = Callable[[str], None]

_FIRST_GUESS_SHARE = 0.5  # of the closed loop's throughput
_CLOSE_ENOUGH = 0.05  # of the rate


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a search, in requests per second; None: not seen."""

    attainment: float  # that was wanted
    rate: float | None
    failed_rate: float | None


def parse_rates(text: str) -> list[float]:
    """`1,2,4`: ascending requests per second. Raises LoadOptionError."""
    try:
        rates = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise LoadOptionError(f"--rates {text!r}: give numbers with commas, e.g. 1,2,4") from None
    if not rates or any(not 0 < rate < 1e6 for rate in rates):
        raise LoadOptionError(f"--rates {text!r}: give rates above 0, e.g. 1,2,4")
    return sorted(set(rates))


def check_attainment(attainment: float) -> float:
    """Raises LoadOptionError unless it is a share that can be wanted."""
    if not 0 < attainment <= 1:
        raise LoadOptionError(f"--attainment {attainment:g} is not a share above 0 and up to 1")
    return attainment


def at_rate(arrivals: Arrivals, rate: float) -> Arrivals:
    """The same kind of arrivals at another rate; a closed loop becomes Poisson. Raises LoadOptionError."""
    if arrivals.kind == "gamma":
        return parse_arrivals(f"gamma:{rate:g},{arrivals.values[1]:g}")
    if arrivals.kind in ("poisson", "constant"):
        return parse_arrivals(f"{arrivals.kind}:{rate:g}")
    if arrivals.closed:
        return parse_arrivals(f"poisson:{rate:g}")
    raise LoadOptionError(f"--arrivals {arrivals.text} has no one rate; use poisson, gamma or constant")


def default_rates(ceiling: float) -> list[float]:
    """A fifth to one and a quarter of what a closed loop reached."""
    return [round(share * ceiling, 3) for share in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.25)]


def sweep(bench: Bench, rates: Sequence[float] | None, *, progress: Progress, say: Say) -> list[RunResult]:
    """A run at each rate, ascending; it ends with the first that the server does not hold.

    Without rates a closed loop is measured first (its workers those of `--arrivals closed:N`, else 32), and rates
    are laid below and above what it reached. Raises BenchmarkError.
    """
    runs: list[RunResult] = []
    if rates is None:
        runs.append(_ceiling(bench, progress, say))
        rates = default_rates(reached_req_s(runs[0].figures))
    for place, rate in enumerate(rates):
        arrivals = at_rate(bench.load.arrivals, rate)
        say(f"{arrivals.text}, {place + 1} of {len(rates)}")
        runs.append(bench.run(arrivals.text, arrivals, seed=bench.settings.seed + place, progress=progress))
        if any(finding.code == "unsustained" for finding in runs[-1].findings):
            say(f"{arrivals.text} is not held: higher rates are left out")
            break
    return runs


def search(
    bench: Bench,
    *,
    attainment: float,
    most_runs: int,
    progress: Progress,
    say: Say,
) -> tuple[list[RunResult], Found]:
    """Halve the way between the highest rate that was held and the lowest that was not.

    A rate is held when at least `attainment` of its measured requests are good. Ends when the two are within 5 %,
    or after `most_runs`. Raises BenchmarkError.
    """
    check_attainment(attainment)
    runs = [_ceiling(bench, progress, say)]
    held: float | None = None
    failed: float | None = None
    rate = _FIRST_GUESS_SHARE * reached_req_s(runs[0].figures)
    for place in range(most_runs):
        arrivals = at_rate(bench.load.arrivals, round(rate, 3))
        say(f"{arrivals.text} ({_known(held, failed)})")
        try:
            run = bench.run(arrivals.text, arrivals, seed=bench.settings.seed + place, progress=progress)
        except NothingMeasuredError:
            if held is None and failed is not None:
                raise
            failed = rate
        else:
            runs.append(run)
            if run.figures["slo_attainment"] >= attainment and run.valid:
                held = rate
            else:
                failed = rate
        if held is not None and failed is not None and failed - held <= _CLOSE_ENOUGH * held:
            break
        rate = _next_rate(held, failed)
    return runs, Found(attainment, held, failed)


def _ceiling(bench: Bench, progress: Progress, say: Say) -> RunResult:
    arrivals = bench.load.arrivals if bench.load.arrivals.closed else parse_arrivals("closed:32")
    say(f"{arrivals.text}: what the server reaches when nobody waits")
    # Other texts than the first rate's, which has the same seed: the server would have them in its prefix cache.
    other = replace(bench, prompts=replace(bench.prompts, salt=f"{bench.prompts.salt}/ceiling"))
    return other.run(arrivals.text, arrivals, progress=progress)


def _next_rate(held: float | None, failed: float | None) -> float:
    if held is None:
        return (failed or 1.0) / 2
    return 2 * held if failed is None else (held + failed) / 2


def _known(held: float | None, failed: float | None) -> str:
    low = "nothing held yet" if held is None else f"{held:.2f} held"
    return low if failed is None else f"{low}, {failed:.2f} not"
