"""Which base and which engine the settings ask for, and how long an engine may be silent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from adapters.target import TargetBase, describe_target
from adapters.targets import engine_modules
from bases.architecture import ArchitectureFacts
from bases.folder import read_json_object
from bases.passport import Passport, read_passport
from bases.resolve import ResolvedBase, resolve_base
from quantize.lm_head.record import read_record
from serve.engine.protocol import MortalEngine
from serve.engine.scripted import ScriptedEngine
from serve.engine.supervised.backoff import RestartRules
from serve.engine.supervised.supervisor import EngineFactory, SupervisionRules
from serve.engine.supervised.watchdog import WatchRules
from serve.engine.vllm.arguments import EngineWishes
from serve.engine.vllm.quantisation import read_quantisation
from serve.errors import SettingsError
from serve.settings import ServeSettings

logger = logging.getLogger("hotswap.gateway")


def supervision_rules(settings: ServeSettings) -> SupervisionRules:
    """When an engine is given up, and how often a new one is started."""
    return SupervisionRules(
        WatchRules(stall_seconds=settings.engine_stall_seconds, hang_seconds=settings.engine_hang_seconds),
        RestartRules(
            max_restarts=settings.engine_max_restarts, window_seconds=settings.engine_restart_window_seconds
        ),
    )


def checked_base(
    reference: str, home: Path, *, progress: Callable[[str], None], trust_remote_code: bool = False
) -> TargetBase:
    """Make a base ready and describe it for adapter checks. Raises BaseModelError."""
    base = resolve_base(reference, home=home, trust_remote_code=trust_remote_code, progress=progress)
    return describe_target(base, read_passport(base, home=home, progress=progress))


def served_base(settings: ServeSettings) -> ResolvedBase:
    """The base that is to be served, made ready. Raises BaseModelError."""
    return resolve_base(
        settings.base,
        home=settings.home,
        revision=settings.base_revision,
        trust_remote_code=settings.trust_remote_code,
        progress=logger.info,
    )


def engine_wishes(settings: ServeSettings, base: ResolvedBase, passport: Passport) -> EngineWishes:
    """What the settings ask of vLLM for this base; `choose_arguments` turns it into vLLM's own arguments.

    Raises SettingsError for an output layer in 8 bits that was not measured on this base, or does not pass.
    """
    reasoning = settings.reasoning if settings.reasoning not in ("auto", "off") else None
    if settings.reasoning == "auto" and passport.reasoning:
        reasoning = "deepseek_r1"
    return EngineWishes(
        model_path=str(base.path),
        model_name=settings.served_model_name or base.name,
        context_tokens=passport.facts.context_tokens,
        kv_values_per_token=_kv_values_per_token(passport.facts),
        lora_targets=engine_modules(passport.facts),
        model_type=passport.facts.model_type,
        head_size=passport.facts.head_dim,
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        kv_cache_gib=settings.kv_cache_gib,
        max_num_seqs=settings.max_num_seqs,
        max_loras=settings.max_loras,
        max_cpu_loras=settings.max_cpu_loras,
        max_lora_rank=settings.max_lora_rank,
        cpu_patches=settings.cpu_patches,
        niceness=settings.engine_niceness,
        cpu_kernels=settings.cpu_kernels,
        lm_head_bits=_measured_bits(settings, base, passport),
        quantisation=read_quantisation(read_json_object(base.path / "config.json")),
        reasoning_parser=reasoning,
        tool_parser=settings.tool_parser,
        trust_remote_code=settings.trust_remote_code,
        structured_outputs=settings.structured_outputs,
        extra=settings.engine_arg,
    )


def _measured_bits(settings: ServeSettings, base: ResolvedBase, passport: Passport) -> int | None:
    bits = settings.lm_head_bits
    if bits is None:
        return None
    record = read_record(settings.home, passport.fingerprint)
    measure = f"hotswap quantize {base.reference} --lm-head-bits {bits}"
    if record is None:
        raise SettingsError(
            f"--lm-head-bits {bits}: what it costs {base.name} has not been measured. Run `{measure}` first; it "
            "takes a minute or two for a small base, and changes nothing."
        )
    problems = record.problems()
    if problems:
        raise SettingsError(
            f"--lm-head-bits {bits}: {base.name} was measured with it, and did not pass: {'; '.join(problems)}. "
            f"Leave it out, or measure on text of your own: `{measure} --evaluation FILE`."
        )
    return bits


def vllm_engines(settings: ServeSettings, base: ResolvedBase, passport: Passport) -> EngineFactory:
    """Makes the engine again and again."""
    from serve.engine.vllm.engine import VllmEngines

    return VllmEngines(engine_wishes(settings, base, passport))


def given_engines(given: MortalEngine | EngineFactory | None, settings: ServeSettings) -> EngineFactory:
    """What a test gave; a single engine is started again itself. Without one, a scripted engine."""
    if given is None:
        return lambda: ScriptedEngine(max_num_seqs=settings.max_num_seqs or 64, keep_requests=False)
    if callable(given):
        return given
    return lambda: given


def _kv_values_per_token(facts: ArchitectureFacts) -> int:
    """Keys and values of every layer. Latent attention (MLA) keeps fewer: an upper bound there."""
    return 2 * facts.num_layers * facts.num_kv_heads * facts.head_dim
