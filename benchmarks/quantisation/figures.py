"""The figures of the report as plain data, as they are recorded and as the JSON document holds them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "hotswap.quantisation/1"

SubjectName = Literal["merged", "plain"]


class Figures(BaseModel):
    """Frozen, strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(Figures):
    """A value with the ends of its interval or of its spread; `count` tells of how many."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


class MadeForm(Figures):
    """One base on disk. `scheme` None: the original. `disk_bytes` counts the files of the weights."""

    folder: str
    name: str
    fingerprint: str
    scheme: str | None = None
    takes_adapters: bool = Field(default=True, description="Whether adapters of the original fit.")
    disk_bytes: int
    seconds: float | None = Field(default=None, description="Time it took to make; None: it was there.")


class MadeAdapter(Figures):
    """An adapter folder that is put on top of a base."""

    name: str
    folder: str
    digest: str
    rank: int


class Made(Figures):
    """Everything that a report is about. The original is first, then its forms.

    By scheme: `recovery` are recovery adapters alone, `recovered` the task's adapter composed with them.
    """

    merged: tuple[MadeForm, ...] = Field(min_length=1)
    plain: tuple[MadeForm, ...] = Field(min_length=1)
    adapter: MadeAdapter
    recovery: dict[str, MadeAdapter] = Field(default_factory=dict)
    recovered: dict[str, MadeAdapter] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class CapitalAnswer(Figures):
    """What a served base says to the question for the capital of France."""

    subject: SubjectName
    served: str
    text: str
    says_paris: bool


class MemoryFigures(Figures):
    """Bytes. None: could not be had on this system.

    `served` names the server. `weights_bytes` is what loading the weights added to the engine process, packed
    layouts included; `slots_bytes` what the slots for adapters added; `kv_cache_bytes` what the KV cache added.
    `pss_bytes` is the proportional share of all processes after some requests, `peak_bytes` the sum of their
    highest residence; both with the KV cache in them.
    """

    served: str
    weights_bytes: int | None = None
    slots_bytes: int | None = None
    kv_cache_bytes: int | None = None
    pss_bytes: int | None = None
    peak_bytes: int | None = None
    load_seconds: float | None = None

    @property
    def pss_without_kv_bytes(self) -> int | None:
        """Share of memory without the KV cache."""
        if self.pss_bytes is None or self.kv_cache_bytes is None:
            return None
        return self.pss_bytes - self.kv_cache_bytes


class TaskFigures(Figures):
    """Answers to the task's notes. `right` has a 1 for every note whose label was found and right, in order."""

    subject: SubjectName
    served: str
    adapter: str | None
    accuracy: Measured
    right: str = Field(pattern="^[01]+$")
    num_tokens: int
    seconds: float


class EqualityFigures(Figures):
    """Greedy answers of the gateway against transformers on the same files.

    `control_*`, where the scheme rounds activations: transformers against itself with other prompts beside each.
    What another order of summing changes is then rounded to another integer, and the difference is no longer small.
    """

    subject: SubjectName
    served: str
    adapter: str | None
    num_prompts: int
    num_equal: int
    num_ties: int
    num_tokens: int
    max_logprob_difference: float
    control_equal: int | None = None
    control_max_logprob_difference: float | None = None


class SpeedCell(Figures):
    """One server at one concurrency. Ratios are of pairs in the same round, against the first server."""

    served: str
    concurrency: int
    attempted: int
    answered: int
    output_tok_s: Measured | None
    ttft_p50_seconds: float | None
    ttft_p99_seconds: float | None
    tpot_p50_seconds: float | None
    throughput_ratio: Measured | None = None
    ttft_ratio: Measured | None = None
    noisy_blocks: int
    blocks: int


class SpeedFigures(Figures):
    """One run of the speed part."""

    started: str
    rounds: int
    rounds_wanted: int
    max_tokens: int
    prompt_tokens: tuple[int, ...]
    baseline: str
    together: bool
    cells: tuple[SpeedCell, ...]
    warnings: tuple[str, ...] = ()


class Machine(Figures):
    """Where something was measured."""

    line: str
    isa: str | None = Field(default=None, description="What was simulated; None: nothing.")
