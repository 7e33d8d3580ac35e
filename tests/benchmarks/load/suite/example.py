"""Runs with known figures, and a suite made of them, without a server."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.load.bench import Bench
from benchmarks.load.client.order import Outcome
from benchmarks.load.client.record import Record
from benchmarks.load.client.sending import Sent
from benchmarks.load.client.target import Target
from benchmarks.load.figures.slo import PRESETS
from benchmarks.load.result_file import Measurement, measurement_of
from benchmarks.load.rounds import Arm, Turn, conclusion_of_turns
from benchmarks.load.run import RunResult, measure
from benchmarks.load.settings import BenchSettings
from benchmarks.load.suite.measures import IdleCost
from benchmarks.load.suite.result import SuiteResult
from benchmarks.load.window import Window
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.load.workload.assignment import parse_assignment
from benchmarks.load.workload.lengths import parse_lengths
from benchmarks.load.workload.prompt_source import PromptSource
from benchmarks.load.workload.schedule import Load, Schedule
from benchmarks.surroundings import Surroundings

ADAPTERS = ("adapter-0", "adapter-1")
SLO = PRESETS["content"]
TARGET = Target("http://127.0.0.1:1", "generate", "tiny", ADAPTERS, 4096, 0)
WINDOW = Window(1.0, 11.0)
SURROUNDINGS = Surroundings("cpu", "cpu", 2, 8.0, "Linux", "3.11", {"torch": "2"}, "abc", 0.5)


def run(name: str, *, ttft_seconds: float = 0.1, every_seconds: float = 0.05) -> RunResult:
    """A request every so often, each of four tokens 10 ms apart."""
    records = []
    for number in range(int(11.0 / every_seconds)):
        at = number * every_seconds
        events = [at + ttft_seconds + 0.01 * place for place in range(4)]
        records.append(
            Record(
                number,
                at,
                at,
                ADAPTERS[number % 2],
                4,
                outcome="ok",
                status=200,
                event_seconds=events,
                done_seconds=events[-1],
                prompt_tokens=8,
                completion_tokens=4,
            )
        )
    schedule = Schedule((), 1, 1)
    outcome = Outcome(len(records), 0, 0.1, 11.0, WINDOW.start, WINDOW.end)
    return measure(name, Sent(records, [outcome], WINDOW), schedule, SLO)


def bench() -> Bench:
    """A load over both adapters on a server that is not there."""
    load = Load(
        parse_arrivals("closed:1"),
        parse_lengths("8", option="--prompt-tokens"),
        parse_lengths("4", option="--answer-tokens"),
        parse_assignment("uniform"),
        ADAPTERS,
    )
    return Bench(BenchSettings(), TARGET, load, PromptSource(seed=1), SLO)


def closed_loop() -> tuple[list[RunResult], dict[str, Any]]:
    """Runs and conclusion of the part `closed`: adapters bring half the tokens of the base."""
    turns = [
        Turn("base @1", 0, run("base @1, round 1", every_seconds=0.05)),
        Turn("2 adapters @1", 0, run("2 adapters @1, round 1", every_seconds=0.1)),
    ]
    arms = [Arm(turn.arm, bench(), parse_arrivals("closed:1")) for turn in turns]
    loops = [
        {"run": turn.run.name, "arm": turn.arm, "concurrency": 1, "who": who}
        for turn, who in zip(turns, ("base", "adapters"), strict=True)
    ]
    return [t.run for t in turns], {**conclusion_of_turns(turns, arms, "base @1"), "loops": loops}


def suite(*, left_out: dict[str, str] | None = None) -> tuple[SuiteResult, dict[str, list[RunResult]]]:
    """The parts `closed`, `open` and `idle`."""
    loops, conclusion = closed_loop()
    rates = [run("0.5 x capacity", every_seconds=0.2), run("1 x capacity", ttft_seconds=0.9)]
    idle = IdleCost(5.0, 0.02, 0.01, 2 * 1024**3, 2)
    runs = {"closed": loops, "open": rates, "idle": []}
    conclusions: dict[str, dict[str, Any]] = {
        "closed": conclusion,
        "open": {"capacity_req_s": 10.0},
        "idle": {"idle": asdict(idle)},
    }
    parts: dict[str, Measurement] = {
        key: measurement_of(
            key,
            of_part,
            command="hotswap bench suite",
            target=TARGET,
            load=BenchSettings(seconds=10.0).shown(),
            slo=SLO,
            surroundings=SURROUNDINGS,
            conclusion=conclusions[key],
        )
        for key, of_part in runs.items()
    }
    result = SuiteResult(
        command="hotswap bench suite --minutes 5",
        created_at="2026-01-01T00:00:00+00:00",
        minutes=5.0,
        seconds=250.0,
        gateway={"base": "tiny", "flags": ["--max-loras=3"], "ranks": {"adapter-0": 8, "adapter-1": 64}},
        load={"answer_tokens": "4"},
        capacity_req_s=10.0,
        slo=SLO.shown(),
        surroundings=asdict(SURROUNDINGS),
        parts=parts,
        left_out=left_out or {},
    )
    return result, runs
