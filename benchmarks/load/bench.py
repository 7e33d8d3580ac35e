"""A server and settings made ready: what `run`, `sweep` and `search` have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.load.churn import parse_churn
from benchmarks.load.client.sending import Beside, RunPlan
from benchmarks.load.client.target import Target, read_target
from benchmarks.load.client.wire import Dialect
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.figures.slo import Slo, parse_slo
from benchmarks.load.run import RunResult, run_load
from benchmarks.load.settings import BenchSettings
from benchmarks.load.workload.arrivals import Arrivals, parse_arrivals
from benchmarks.load.workload.assignment import parse_assignment
from benchmarks.load.workload.lengths import parse_lengths
from benchmarks.load.workload.prompt_source import PromptSource, read_prompts
from benchmarks.load.workload.schedule import Load, Schedule, make_schedule

# An open loop goes on after what is measured until the last measured answer is complete, at most so long.
_TAIL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything a run needs but its arrivals. Made by `prepare`, which finds what is wrong before any load."""

    settings: BenchSettings
    target: Target
    load: Load
    prompts: PromptSource
    slo: Slo
    beside: Callable[[int], Beside] | None = None  # changes of adapters during a run of that seed
    tail_seconds: float | None = None  # as in RunPlan; so are the next two
    requests: int | None = None
    out_of_step: bool = False

    def shown_as(self, arrivals: str) -> Bench:
        """The same, for the report of a measurement that had other arrivals than `--arrivals`."""
        return replace(self, settings=self.settings.model_copy(update={"arrivals": arrivals}))

    def schedule(self, arrivals: Arrivals, *, seed: int) -> Schedule:
        """All requests of one run. Raises LoadOptionError."""
        load = Load(
            arrivals,
            self.load.prompts,
            self.load.answers,
            self.load.mix,
            self.load.adapters,
            base_share=self.load.base_share,
            cancel_share=self.load.cancel_share,
            context_tokens=self.load.context_tokens,
        )
        seconds = self.settings.warmup_seconds + self.settings.seconds
        return make_schedule(load, seconds=seconds + (0 if arrivals.closed else _TAIL_SECONDS), seed=seed)

    def run(
        self,
        name: str,
        arrivals: Arrivals,
        *,
        seed: int | None = None,
        progress: Callable[[dict[str, float]], None] = lambda _: None,
    ) -> RunResult:
        """One run. Raises BenchmarkError."""
        settings = self.settings
        plan = RunPlan(
            warmup_seconds=settings.warmup_seconds,
            seconds=settings.seconds,
            stream=settings.stream,
            timeout_seconds=settings.timeout_seconds,
            max_in_flight=settings.max_in_flight,
            workers=settings.workers,
            key=settings.key.get_secret_value() if settings.key is not None else None,
            web_port=settings.web_port,
            keep_alive=settings.keep_alive,
            tail_seconds=self.tail_seconds,
            metrics_every_seconds=settings.metrics_every_seconds,
            requests=self.requests,
            out_of_step=self.out_of_step,
        )
        seed = settings.seed if seed is None else seed
        schedule = self.schedule(arrivals, seed=seed)
        prompts = replace(self.prompts, seed=seed)  # texts that no cache knows from the last run
        beside = self.beside(seed) if self.beside is not None else None
        return run_load(
            name, self.target, schedule, prompts, plan, self.slo, progress=progress, beside=beside
        )


def check_options(settings: BenchSettings) -> None:
    """Read every option, as `prepare` does, before a server is started for it. Raises LoadOptionError."""
    parse_arrivals(settings.arrivals)
    parse_lengths(settings.prompt_tokens, option="--prompt-tokens")
    parse_lengths(settings.answer_tokens, option="--answer-tokens")
    parse_assignment(settings.adapter_mix)
    parse_slo(settings.slo)
    if settings.churn is not None:
        parse_churn(settings.churn)
    if settings.prompts is not None:
        read_prompts(settings.prompts)


def prepare(settings: BenchSettings, *, dialect: Dialect | None = None) -> Bench:
    """Read every option, then ask the server. `dialect`: instead of `--api`, for servers that speak another one.

    Raises LoadOptionError, TargetError.
    """
    arrivals = parse_arrivals(settings.arrivals)
    prompts = parse_lengths(settings.prompt_tokens, option="--prompt-tokens")
    answers = parse_lengths(settings.answer_tokens, option="--answer-tokens")
    mix, slo = parse_assignment(settings.adapter_mix), parse_slo(settings.slo)
    texts = read_prompts(settings.prompts) if settings.prompts is not None else ()
    named = _names(settings.adapters)
    target = read_target(
        settings.url,
        dialect or settings.api,
        adapters=named,
        key=settings.key.get_secret_value() if settings.key is not None else None,
    )
    _check(settings, arrivals, target, named)
    return Bench(
        settings=settings,
        target=target,
        load=Load(
            arrivals,
            prompts,
            answers,
            mix,
            target.adapters,
            base_share=settings.base_share,
            cancel_share=settings.cancel_share,
            context_tokens=target.context_tokens,
        ),
        prompts=PromptSource(
            seed=settings.seed,
            overhead_tokens=target.overhead_tokens,
            shared_prefix_tokens=settings.shared_prefix_tokens,
            texts=texts,
        ),
        slo=slo,
    )


def _names(text: str) -> tuple[str, ...] | None:
    if text == "all":
        return None
    if text == "none":
        return ()
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise LoadOptionError("--adapters names nobody; give names with commas, all or none")
    return names


def _check(
    settings: BenchSettings, arrivals: Arrivals, target: Target, named: tuple[str, ...] | None
) -> None:
    wanted: Any = {line.adapter for line in arrivals.trace if line.adapter}
    unknown = sorted(wanted - set(target.adapters) - {target.base})
    if unknown:
        raise LoadOptionError(f"the trace asks for {', '.join(unknown)}, which {target.url} does not serve")
    if named is None and not target.adapters and settings.adapter_mix != "uniform" and settings.churn is None:
        raise LoadOptionError(
            f"--adapter-mix {settings.adapter_mix}: {target.url} serves no adapter; load some, or leave it out"
        )
    if settings.workers > 1 and arrivals.closed and arrivals.workers < settings.workers:
        raise LoadOptionError(
            f"--workers {settings.workers}: a closed loop of {arrivals.workers} cannot be dealt out to so many"
        )
