"""The command line. Exit codes: 0 measured, 1 could not be measured or something failed, 2 wrong usage."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.closed_loop.entry import run_app
from benchmarks.closed_loop.errors import ClientFailedError, NoAnswerError, PlanError
from benchmarks.closed_loop.server import Server, ServerSpec, running
from benchmarks.overload.client import Order
from benchmarks.overload.figures import Limits, Stage, measure_stage
from benchmarks.overload.plan import CAPACITY_WORKERS, FACTORS, Plan
from benchmarks.overload.record import read_records
from benchmarks.overload.report import markdown
from benchmarks.steady.gateway import find_base, gateway_spec
from benchmarks.steady.machine import MachineTime
from benchmarks.surroundings import CHECKOUT, read_surroundings

CLIENT_MODULE = "benchmarks.overload.client"
_WARM_UP_SECONDS = 5.0
_GRACE_SECONDS = 60.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    workers: Annotated[str, typer.Option(help="Closed loops that look for the capacity.")] = ",".join(
        map(str, CAPACITY_WORKERS)
    ),
    factors: Annotated[str, typer.Option(help="Multiples of the capacity to offer.")] = ",".join(
        f"{factor:g}" for factor in FACTORS
    ),
    capacity_seconds: Annotated[float, typer.Option(help="Length of each closed loop.")] = 20.0,
    settle_seconds: Annotated[float, typer.Option(help="Start of each open loop, not counted.")] = 25.0,
    measure_seconds: Annotated[float, typer.Option(help="Counted part of each open loop.")] = 30.0,
    max_tokens: Annotated[int, typer.Option(help="Length of every answer.")] = 16,
    prompt_words: Annotated[int, typer.Option(help="Length of every prompt, in words.")] = 32,
    slo_ttft_seconds: Annotated[float, typer.Option(help="A good answer's first token.")] = 10.0,
    slo_e2e_seconds: Annotated[float, typer.Option(help="A good answer's last token.")] = 20.0,
    base: Annotated[
        str, typer.Option(help="Base model, as for `hotswap serve`; tiny, or scripted.")
    ] = "default",
    url: Annotated[str | None, typer.Option(help="Measure a gateway that is running.")] = None,
    serve_arg: Annotated[
        list[str] | None,
        typer.Option(help="More flags of `hotswap serve`, e.g. --serve-arg=--max-num-seqs=32"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results. Default: build/bench/overload/TIME.")
    ] = None,
) -> None:
    """Measure good answers a second, and how fast the rest is refused, when more is asked than can be done.

    Example: python -m benchmarks.overload --serve-arg=--max-num-seqs=32
    """
    console = Console(stderr=True)
    started = datetime.now(UTC)
    plan = Plan(
        workers=tuple(int(number) for number in _numbers("--workers", workers)),
        factors=_numbers("--factors", factors),
        capacity_seconds=capacity_seconds,
        settle_seconds=settle_seconds,
        measure_seconds=measure_seconds,
        max_tokens=max_tokens,
        prompt_words=prompt_words,
        limits=Limits(slo_ttft_seconds, slo_e2e_seconds),
    )
    plan.check()
    surroundings = read_surroundings()
    folder = out or CHECKOUT / "build" / "bench" / "overload" / f"{started:%Y%m%dT%H%M%SZ}"
    folder.mkdir(parents=True, exist_ok=True)
    stages: list[Stage] = []
    with running(
        [_spec(url, base, serve_arg or [], folder)], logs=folder, ready_seconds=plan.ready_seconds
    ) as up:
        stager = Stager(up["gateway"], plan, folder)
        stager.run("warm-up", _WARM_UP_SECONDS, 0.0, workers=8)
        for number in plan.workers:
            stages.append(stager.run(f"closed, {number}", 0.25 * plan.capacity_seconds, 0.0, workers=number))
            _say(console, stages[-1])
        capacity = max(stage.answers_per_second for stage in stages)
        if not capacity:
            raise NoAnswerError("no request was answered, so there is no capacity to exceed")
        for factor in plan.factors:
            stages.append(stager.run(f"{factor:g}x", plan.settle_seconds, factor * capacity))
            _say(console, stages[-1])
    command = shlex.join(["python", "-m", "benchmarks.overload", *sys.argv[1:]])
    entry = markdown(stages, capacity, plan, started=started, command=command, surroundings=surroundings)
    result = {
        "started": started.isoformat(),
        "command": sys.argv[1:],
        "plan": asdict(plan),
        "surroundings": asdict(surroundings),
        "capacity_per_second": capacity,
        "stages": [asdict(stage) for stage in stages],
    }
    (folder / "results.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (folder / "log-entry.md").write_text(entry, encoding="utf-8")
    print(entry)
    console.print(f"results.json, log-entry.md and every request as JSONL: {folder}", soft_wrap=True)
    if any(stage.errors for stage in stages):
        raise typer.Exit(1)


class Stager:
    """Runs stages on one server."""

    def __init__(self, server: Server, plan: Plan, folder: Path) -> None:
        self._server = server
        self._plan = plan
        self._folder = folder

    def run(self, name: str, settle_seconds: float, rate: float, *, workers: int = 0) -> Stage:
        """One stage: an open loop of `rate` a second, or (0) a closed loop. Raises ClientFailedError."""
        plan = self._plan
        seconds = settle_seconds + plan.measure_seconds if rate else plan.capacity_seconds
        order = Order(
            url=self._server.url,
            seconds=seconds,
            rate=rate,
            workers=workers,
            prompt_words=plan.prompt_words,
            max_tokens=plan.max_tokens,
            seed=f"{plan.seed}/{name}",
            request_timeout_seconds=plan.request_timeout_seconds,
        )
        stem = "".join(letter if letter.isalnum() else "-" for letter in name)
        order_path, records_path = self._folder / f"{stem}.order.json", self._folder / f"{stem}.jsonl"
        order_path.write_text(order.to_json(), encoding="utf-8")
        command = [sys.executable, "-m", CLIENT_MODULE, str(order_path), str(records_path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT) as client:
            try:
                own = [os.getpid(), client.pid, *self._server.process_ids()]
                before = MachineTime.read(time.monotonic(), own)
                time.sleep(seconds)
                share = before.foreign_share(MachineTime.read(time.monotonic(), own))
                _, errors = client.communicate(timeout=plan.request_timeout_seconds + _GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                raise ClientFailedError("the load client did not end") from None
            finally:
                client.kill()
        if client.returncode != 0:
            raise ClientFailedError(
                f"the load client failed: {errors.strip()[-1000:] or 'it gave no reason'}"
            )
        return measure_stage(
            read_records(records_path),
            plan.limits,
            name=name,
            offered_per_second=rate or None,
            workers=workers,
            steady=(settle_seconds, seconds),
            foreign_cpu_share=share,
        )


def _spec(url: str | None, base: str, serve_arg: list[str], folder: Path) -> ServerSpec:
    if url is not None:
        return ServerSpec("gateway", "a running gateway", base, "/readyz", url=url)
    home = folder / "home"
    (home / "adapters").mkdir(parents=True, exist_ok=True)
    return gateway_spec(home, find_base(base, folder), serve_arg)


def _say(console: Console, stage: Stage) -> None:
    ttft, refusal = stage.ttft_p99_seconds, stage.refusal_p99_seconds
    console.print(
        f"{stage.name}: {stage.goodput_per_second:.2f} good/s, {stage.answers_per_second:.2f} answers/s, TTFT p99 "
        f"{'-' if ttft is None else f'{ttft:.2f} s'}, {stage.refused} refused, 429 p99 "
        f"{'-' if refusal is None else f'{1000 * refusal:.1f} ms'}, {sum(stage.errors.values())} failures",
        soft_wrap=True,
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise PlanError(f"{option} {text!r} is not a list of numbers; write e.g. 1,2,4") from None


if __name__ == "__main__":
    run_app(app, "overload")
