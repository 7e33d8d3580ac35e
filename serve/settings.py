"""Every setting of the gateway, once: flags, `HOTSWAP_*` environment variables and the TOML file come from here.

Order of precedence: flag, environment, TOML file (`--config FILE` or HOTSWAP_CONFIG), default.
Settings stay at the edge: serve/build.py turns them into flat arguments.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from adapters.errors import AdapterSourceError
from adapters.source import parse_remote
from bases.settings_faults import settings_faults
from serve.access.authority import HASH_PREFIX
from serve.errors import SettingsError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

CONFIG_VARIABLE = "HOTSWAP_CONFIG"
_DIGEST = re.compile("[0-9a-fA-F]{64}")


class ServeSettings(BaseSettings):
    """Settings of `hotswap serve`. Each description states the unit."""

    model_config = SettingsConfigDict(env_prefix="HOTSWAP_", extra="forbid", frozen=True)

    # What is served
    base: str = Field(
        "default",
        description="Base model: `default` (embedded SmolLM2-135M-Instruct), a folder, or a hub id.",
    )
    base_revision: str | None = Field(None, description="Hub revision (branch, tag or commit) of the base.")
    served_model_name: str | None = Field(
        None, description="Public name of the base. Default: from the base's own name."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code shipped inside the base model folder."
    )
    home: Path = Field(
        Path("~/.cache/hotswap"), description="Folder for converted bases, stored adapters and the registry."
    )

    # Where
    host: str = Field("127.0.0.1", description="Address to bind. Anything but loopback needs keys.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host header names accepted, comma-separated. Default: loopback names when bound to "
        "loopback (keeps web pages away from a local server), any name otherwise.",
    )

    # Engine
    engine: Literal["vllm", "scripted"] = Field(
        "vllm", description="`vllm`, or `scripted`: a deterministic stand-in without a model, for tests."
    )
    engine_arg: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Any vLLM engine argument as name=value, repeatable: `tensor-parallel-size=2`.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number format of weights and KV cache; auto picks what the device is fast at."
    )
    max_model_len: int | None = Field(
        None, ge=8, description="Context in tokens. Default: the base's own, as far as the KV cache holds it."
    )
    kv_cache_gib: float | None = Field(
        None, gt=0, description="KV cache in GiB on CPU. Default: a quarter of the free memory, at most 8."
    )
    cpu_patches: str = Field(
        "auto", description="Mends for vLLM on CPU: auto, none, or a comma list (docs/upstream-defects.md)."
    )
    engine_niceness: int = Field(
        10,
        ge=0,
        le=19,
        description="How far the engine stands behind the gateway for a core, on a CPU, as nice(1) counts.",
    )
    cpu_kernels: Literal["auto", "hotswap", "vllm"] = Field(
        "auto",
        description="Whose kernels compute quantised layers on CPU where both can: `auto` (measured faster), "
        "`hotswap` or `vllm`.",
    )
    lm_head_bits: Literal[8] | None = Field(
        None,
        description="Multiply by the output layer in 8 bits on CPU: faster, and rounded; only once `hotswap "
        "quantize BASE --lm-head-bits 8` found that it costs little. Default: as the base stores it.",
    )
    engine_stall_seconds: float = Field(
        15.0,
        gt=0,
        description="Without a sign of life from the engine for so long, in seconds, no new work is taken.",
    )
    engine_hang_seconds: float = Field(
        60.0, gt=0, description="After so long, in seconds, the engine is ended and started again."
    )
    engine_max_restarts: int = Field(
        5,
        ge=0,
        description="Restarts of a lost engine within the window; beyond it the server ends with code 4. "
        "0: at the first loss.",
    )
    engine_restart_window_seconds: float = Field(
        600.0, gt=0, description="The window in which restarts are counted, in seconds."
    )
    reasoning: str = Field(
        "auto",
        description="Reasoning field: `auto` (recognised from the base), `off`, or the name of a vLLM parser.",
    )
    tool_parser: str | None = Field(
        None, description="Name of vLLM's tool-call parser for /v1/chat/completions, e.g. `hermes`."
    )
    structured_outputs: bool = Field(True, description="Accept JSON schemas, regexes and choices.")
    grammar_compile_seconds: float = Field(
        5.0, gt=0, le=60, description="Longest time to compile one schema or regex, in seconds."
    )

    # Adapters
    adapter_root: Path | None = Field(
        None, description="Folder that adapters may be loaded from. Default: HOME/adapters."
    )
    allowed_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="URLs below which adapters may be loaded from, comma-separated: `s3://bucket/adapters`, "
        "`gs://bucket`, `hf://org`. Default: none. Credentials come from the environment of the store's library.",
    )
    watch_seconds: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="Seconds between two looks into the adapter root for new versions (ROOT/NAME/VERSION or "
        "ROOT/NAME), which are loaded and promoted. 0: off.",
    )
    registry_url: str | None = Field(
        None, description="SQLAlchemy URL of the registry. Default: a SQLite file in HOME."
    )
    registry_timeout_seconds: float = Field(
        15.0,
        gt=0,
        le=3600,
        description="Longest wait for a statement of a registry in PostgreSQL, in seconds; for a new connection "
        "at most 10. A server that takes longer is an error.",
    )
    registry_poll_seconds: float = Field(
        2.0,
        ge=0,
        description="How often changes that other gateways made in the registry are looked for, and what "
        "failed may be tried again, in seconds; 0: never.",
    )
    keep_versions: int = Field(
        5,
        ge=1,
        le=1000,
        description="Newest versions of a name that are kept to go back to; older ones go, unless they are pinned, "
        "live or in use.",
    )
    max_loras: int = Field(8, ge=1, le=512, description="Adapters in one batch (slots in the engine).")
    max_cpu_loras: int = Field(
        64, ge=1, le=100_000, description="Adapters kept in memory; others are read again when asked for."
    )
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = Field(
        64, description="Highest rank accepted. Each slot is allocated at this rank."
    )
    max_adapter_mib: int = Field(2048, ge=1, description="Largest adapter accepted, in MiB.")
    adapter_probe: Literal["effect", "off"] = Field(
        "effect",
        description="After loading: `effect` refuses an adapter that changes nothing, or that answers unlike "
        "the probe its trainer recorded; `off`.",
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="How long unload and shutdown wait for running requests, in seconds."
    )

    # Limits
    max_num_seqs: int | None = Field(
        None, ge=1, le=4096, description="Sequences generated at once. Default: 64 on CPU, vLLM's own on GPU."
    )
    max_queued_requests: int = Field(256, ge=0, description="Requests that may wait; beyond it 429.")
    max_queued_tokens: int = Field(
        262_144, ge=1, description="Prompt tokens that may wait, in tokens; beyond it 429."
    )
    session_header: str = Field(
        "X-Session-Id",
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$",
        description="Header that names a client's session; a canary may stick to it.",
    )
    max_wait_seconds: float = Field(
        30.0,
        gt=0,
        description="Longest wait for a turn that is foreseen, in seconds, by the rate at which requests finish; "
        "beyond it 429.",
    )
    max_body_kib: int = Field(1024, ge=1, description="Largest request body, in KiB.")
    receive_seconds: float = Field(10.0, gt=0, description="Time for a request to arrive whole, in seconds.")
    upload_seconds: float = Field(
        600.0, gt=0, description="Time for an adapter that is sent to arrive whole, in seconds."
    )
    send_seconds: float = Field(
        30.0, gt=0, description="Time a client may leave a stream unread before it is dropped, in seconds."
    )
    request_seconds: float = Field(600.0, gt=0, description="Longest request, queue included, in seconds.")
    queue_seconds: float | None = Field(
        None,
        gt=0,
        description="Longest wait for a turn, in seconds; beyond it 504. Default: --request-seconds.",
    )
    first_token_seconds: float | None = Field(
        None,
        gt=0,
        description="Longest wait for a stream's first token, queue included, in seconds; beyond it 504. Default: "
        "--request-seconds.",
    )
    max_tokens_default: int = Field(
        256,
        ge=1,
        description="max_tokens when the request names none, in tokens (less if the context is full).",
    )

    # Access and logs
    auth: Literal["auto", "required", "open"] = Field(
        "auto",
        description="Who is answered: `required` (whoever has a key), `open` (anybody), or `auto`: anybody on "
        "loopback, elsewhere whoever has a key. A key that is sent is checked in any case.",
    )
    key_refresh_seconds: float = Field(
        2.0, gt=0, description="How soon a key that was revoked elsewhere is refused here, in seconds."
    )
    key_outage_seconds: float = Field(
        900.0,
        ge=0,
        description="How long known keys stay good while the registry does not answer, in seconds.",
    )
    admin_key: SecretStr | None = Field(
        None, description="Key of the admin API, at least 16 characters; or its digest as `sha256:HEX`."
    )
    log_format: Literal["human", "json"] = Field("human", description="Log lines for people or for machines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Log level.")
    access_log: bool = Field(True, description="One log line per request.")
    metrics_versions: int = Field(
        200,
        ge=1,
        le=10_000,
        description="Adapter versions with series of their own in /metrics; further ones are counted as `other`.",
    )
    otlp_endpoint: str | None = Field(
        None,
        description="Where traces go, by OTLP over HTTP: `http://collector:4318/v1/traces`. Default: no traces.",
    )
    trace_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of requests that are traced, where the caller does not say, 0 to 1.",
    )

    # Review
    review: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Who looks at prompts and answers, in turn, comma-separated: `patterns` (the rules of "
        "--review-rules), an entry point of the group `hotswap.reviewers`, or `package.module:function`.",
    )
    review_rules: Path | None = Field(
        None, description="File of the reviewer `patterns`, .toml or .yaml; docs/review.md describes it."
    )
    review_seconds: float = Field(5.0, gt=0, description="Longest look of a reviewer at a text, in seconds.")
    review_failure: Literal["closed", "open"] = Field(
        "closed",
        description="What happens to a text whose reviewer failed or took too long: `closed` (503 "
        "`review_failed`) or `open` (it passes).",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        config = os.environ.get(CONFIG_VARIABLE)
        if config:
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=Path(config)))
        return tuple(sources)

    @field_validator("allowed_hosts", "allowed_sources", "engine_arg", "review", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("max_lora_rank", "lm_head_bits", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        # Unlike an int field, a choice of numbers does not read the text that an environment variable holds.
        return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value

    @field_validator("admin_key")
    @classmethod
    def _strong_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        key = value.get_secret_value()
        if key.startswith(HASH_PREFIX) and _DIGEST.fullmatch(key.removeprefix(HASH_PREFIX)) is None:
            raise ValueError(
                f"after {HASH_PREFIX!r} come the 64 hex digits of the key's digest; make them with "
                "`printf %s KEY | sha256sum`"
            )
        if len(key) < 16:
            raise ValueError(
                "the admin key has fewer than 16 characters; make one with `openssl rand -hex 32`"
            )
        return value

    @field_validator("allowed_sources")
    @classmethod
    def _readable_sources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            try:
                parse_remote(prefix)
            except AdapterSourceError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("home", "adapter_root")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value is not None else None

    @model_validator(mode="after")
    def _consistent(self) -> ServeSettings:
        if self.max_cpu_loras < self.max_loras:
            raise ValueError(
                f"--max-cpu-loras ({self.max_cpu_loras}) is below --max-loras ({self.max_loras}): "
                "every adapter in a batch is also kept in memory; raise the first or lower the second"
            )
        return self

    @model_validator(mode="after")
    def _stalls_before_it_hangs(self) -> ServeSettings:
        if self.engine_hang_seconds < self.engine_stall_seconds:
            raise ValueError(
                f"--engine-hang-seconds ({self.engine_hang_seconds:g}) is below --engine-stall-seconds "
                f"({self.engine_stall_seconds:g}): an engine takes no new work before it is given up; raise the "
                "first or lower the second"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """True when only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def key_required(self) -> bool:
        """True when nobody is answered without a key."""
        return self.auth == "required" or (self.auth == "auto" and not self.on_loopback)

    @property
    def adapter_folder(self) -> Path:
        """Folder that adapters may be loaded from."""
        return self.adapter_root or self.home / "adapters"

    @property
    def registry(self) -> str:
        """SQLAlchemy URL of the registry."""
        return self.registry_url or f"sqlite:///{self.home / 'registry.db'}"


def load_settings(**given: Any) -> ServeSettings:
    """Merge flags (`given`, None = not given), environment, TOML file and defaults.

    Raises SettingsError with one line per setting at fault.
    """
    config = os.environ.get(CONFIG_VARIABLE)
    if config and not Path(config).is_file():
        raise SettingsError(f"the settings file {config!r} does not exist; create it or drop --config")
    try:
        return ServeSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = settings_faults(error, as_flags=False)
        raise SettingsError(f"these settings cannot be used:\n{faults}") from None
    except ValueError as error:  # a TOML file that does not parse
        raise SettingsError(f"the settings file {config!r} cannot be read: {error}") from None
