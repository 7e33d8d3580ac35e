"""What one engine is asked to measure, and what it found; both cross a process boundary as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

# The two ways that are compared.
VLLM = "vLLM's own paths"
SHORTER = "shorter paths"


class ProfileTask(BaseModel):
    """One base in one number format."""

    model_config = ConfigDict(frozen=True)

    title: str
    arguments: list[str]  # for vLLM's own parser, as the gateway chooses them
    concurrencies: list[int]
    rounds: int
    block_seconds: float
    prompt_tokens: int
    adapter: str | None  # a folder; every request then asks for it


class StepTimes(BaseModel):
    """One block of decode steps: the medians."""

    variant: str
    concurrency: int
    round: int
    num_steps: int
    wall_seconds: float
    thread_seconds: float


class Breakdown(BaseModel):
    """Mean seconds of a step by what they were spent on, the timers' own cost included."""

    variant: str
    concurrency: int
    round: int
    wall_seconds: dict[str, float]
    thread_seconds: dict[str, float]
    calls: dict[str, float]  # timed calls in a step


class ProfileResult(BaseModel):
    """Everything measured with one engine."""

    title: str
    dtype: str
    num_threads: int
    kernels: dict[str, int]  # of quantised layers
    shortened: dict[str, int]  # modules with a shorter path, by class
    steps: list[StepTimes]
    breakdowns: list[Breakdown]


class ServedTimes(BaseModel):
    """One block of streams from the engine in a process of its own."""

    concurrency: int
    round: int
    num_tokens: int
    gap_seconds: float  # median between two tokens of a stream
    front_cpu_seconds_per_token: float  # of the process that asks, the streams' prompts included


class ServedResult(BaseModel):
    """Everything measured with one served engine."""

    title: str
    times: list[ServedTimes]
