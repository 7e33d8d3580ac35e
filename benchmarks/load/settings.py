"""Every setting of `hotswap bench run`, `sweep` and `search`, once: flags and `HOTSWAP_BENCH_*` variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bases.disk import check_writable
from bases.settings_faults import settings_faults
from benchmarks.load.errors import LoadOptionError

BENCH_PREFIX = "HOTSWAP_BENCH_"
# What only modes ask for that change adapters.
CHURN_FIELDS = frozenset(
    {"churn", "churn_adapters", "churn_ranks", "admin_key", "adapter_root", "adapter_base"}
)


class BenchSettings(BaseSettings):
    """How a server is measured. Each description states the unit."""

    model_config = SettingsConfigDict(env_prefix=BENCH_PREFIX, extra="forbid", frozen=True)

    url: str = Field("http://127.0.0.1:8000", description="Address of the server.")
    api: Literal["generate", "chat", "completions"] = Field(
        "generate",
        description="`generate` (Hotswap's own), or OpenAI's `chat` or `completions`, which any server has.",
    )
    stream: bool = Field(True, description="Stream the answers; without, there is no TTFT and no TPOT.")
    key: SecretStr | None = Field(None, description="API key of the server.")
    arrivals: str = Field(
        "closed:8",
        description="closed:WORKERS, or an open loop in requests per second: poisson:RATE, gamma:RATE,CV, "
        "constant:RATE, burst:SIZE,PERIOD, ramp:FROM,TO, trace:FILE.",
    )
    seconds: float = Field(30.0, gt=0, le=86_400, description="Length of what is measured, in seconds.")
    warmup_seconds: float = Field(
        5.0, ge=0, le=3600, description="Load before it, which goes on without a pause, in seconds."
    )
    prompt_tokens: str = Field(
        "64",
        description="Length of prompts in tokens: N, uniform:A,B, normal:MEAN,SD or lognormal:MEDIAN,SIGMA.",
    )
    answer_tokens: str = Field("32", description="Length of answers in tokens, likewise.")
    prompts: Path | None = Field(
        None, description="JSON lines with `prompt`, `text` or `messages` to send instead of made-up texts."
    )
    shared_prefix_tokens: int = Field(
        0, ge=0, le=100_000, description="Tokens that all prompts begin with; 0: no two begin alike."
    )
    adapters: str = Field(
        "all", description="Adapters to ask: all that the server lists, none, or names with commas."
    )
    adapter_mix: str = Field(
        "uniform",
        description="identical, uniform, distinct (in turn) or skewed:ALPHA (Zipf) over the adapters.",
    )
    base_share: float = Field(0.0, ge=0, le=1, description="Share of requests that ask the base, 0 to 1.")
    cancel_share: float = Field(
        0.0, ge=0, le=1, description="Share of requests that hang up after their first token, 0 to 1."
    )
    churn: str | None = Field(
        None,
        description="Adapters that come, change and go during each run, in verbs per minute: "
        "`load:2,replace:2,unload:1`. They are random ones of the measurement's own, asked like the others.",
    )
    churn_adapters: int = Field(4, ge=1, le=10_000, description="How many those are when a run begins.")
    churn_ranks: str = Field("8", description="Their ranks, dealt in turn: `8,16,64`.")
    admin_key: SecretStr | None = Field(None, description="Admin key of the gateway, to change adapters.")
    adapter_root: Path | None = Field(
        None, description="Folder that the gateway loads adapters from. Default: adapters in Hotswap's home."
    )
    adapter_base: str | None = Field(
        None,
        description="Base that random adapters are made for, as for `hotswap serve`. Default: the server's name.",
    )
    slo: str = Field(
        "content",
        description="What makes an answer good: mlperf-server, mlperf-interactive, chat, rag, code, content, or "
        "own:ttft=SECONDS,tpot=SECONDS.",
    )
    seed: int = Field(
        1, ge=0, description="Of the schedule and the texts: the same seed sends the same load."
    )
    workers: int = Field(
        1, ge=1, le=64, description="Processes that send; one schedule is dealt out to them."
    )
    max_in_flight: int = Field(
        512, ge=1, le=16_384, description="Requests under way at most, in an open loop."
    )
    timeout_seconds: float = Field(
        120.0, gt=0, le=3600, description="Longest time without a byte of an answer, in seconds."
    )
    keep_alive: bool = Field(
        True,
        description="Send requests over connections that stay open; without, a new one for each, as servers need "
        "that hang up after an answer.",
    )
    metrics_every_seconds: float = Field(
        1.0,
        ge=0,
        le=3600,
        description="Between two readings of the server's /metrics, in seconds; 0: at both ends alone.",
    )
    web_port: int | None = Field(
        None, ge=0, le=65_535, description="Port of Locust's own web page on 127.0.0.1 while the load runs."
    )
    out: Path = Field(
        Path("bench-results"), description="Folder for the report, the result and the raw requests."
    )

    def shown(self) -> dict[str, Any]:
        """For the report: no key, and nothing that is as it always is."""
        hidden = {"key", "admin_key", "out", "web_port", *(CHURN_FIELDS if self.churn is None else ())}
        fields = self.model_dump(mode="json", exclude=hidden)
        return {name: value for name, value in fields.items() if value is not None}


def load_bench_settings(**given: Any) -> BenchSettings:
    """Flags (`given`, None: not given), environment, defaults. Raises LoadOptionError, a line for each fault."""
    try:
        settings = BenchSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = settings_faults(error, as_flags=True)
        raise LoadOptionError(f"these settings cannot be used:\n{faults}") from None
    try:  # before the load: its results are what cannot be had again
        check_writable(settings.out)
    except OSError as error:
        raise LoadOptionError(
            f"--out {settings.out} cannot be written ({error.strerror}); name another folder"
        ) from None
    return settings
