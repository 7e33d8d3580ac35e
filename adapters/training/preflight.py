"""Everything that can go wrong in a run, looked at before the long part and reported all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import AdapterNameError, TrainingSettingsError
from adapters.name import parse_alias
from adapters.targets import LATENT_ATTENTION, left_out_modules
from adapters.training.arguments import has_bitsandbytes
from adapters.training.base_model import quantisation_of
from adapters.training.memory import MemoryEstimate
from adapters.training.methods.registry import METHODS
from adapters.training.precision import Hardware, PrecisionChoice, choose_precision, read_hardware
from adapters.training.settings import ALL_LINEAR, TrainSettings
from bases.disk import check_writable
from bases.errors import HotswapError
from bases.passport import Passport
from bases.resolve import ResolvedBase

DEFAULT_LENGTH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was decided on the way."""

    hardware: Hardware
    precision: PrecisionChoice
    max_length_tokens: int


def check_run(
    name: str, settings: TrainSettings, base: ResolvedBase, passport: Passport, *, num_processes: int
) -> Preflight:
    """Look at name, output, device, method and base together.

    Raises TrainingSettingsError with every problem; the message of a single one is that problem.
    """
    problems: list[str] = []
    try:
        parse_alias(name, base_name=base.name)
    except AdapterNameError as error:
        problems.append(f"--name: {error}")
    problems += _output_problems(settings.home, name)
    hardware, precision = None, None
    try:
        hardware = read_hardware(settings.device)
        precision = choose_precision(settings.precision, hardware)
    except HotswapError as error:
        problems.append(str(error))
    if hardware is not None:
        problems += _optimizer_problems(settings, hardware)
    problems += _method_problems(settings, base)
    problems += _target_problems(settings, passport)
    parts = settings.accumulation_steps * num_processes
    if settings.batch_size < parts:
        problems.append(
            f"--batch-size {settings.batch_size} is too small for {num_processes} processes with "
            f"--accumulation-steps {settings.accumulation_steps}: give at least {parts}"
        )
    context = passport.facts.context_tokens
    length = settings.max_length_tokens or min(DEFAULT_LENGTH_TOKENS, context)
    if length > context:
        problems.append(f"--max-length-tokens {length} is more than the base's context of {context} tokens")
    raise_all(problems)
    if hardware is None or precision is None:
        raise TrainingSettingsError("the device could not be read")
    return Preflight(hardware, precision, length)


def check_memory(
    estimate: MemoryEstimate, available_bytes: int, settings: TrainSettings, device: str
) -> None:
    """Raise TrainingSettingsError when the estimate is above what is free, with what would make it smaller."""
    if estimate.total_bytes <= available_bytes:
        return
    remedies = ["--gradient-checkpointing", f"--accumulation-steps above {settings.accumulation_steps}"]
    if settings.method == "full":
        remedies.insert(0, "--method lora")
    raise TrainingSettingsError(
        f"this run needs about {estimate} and {available_bytes / 1024**3:.1f} GiB are free on the {device}. "
        f"Less is needed with {', '.join(remedies)}, a smaller --max-length-tokens or a smaller base."
    )


def raise_all(problems: Sequence[str]) -> None:
    """Raise TrainingSettingsError when there are problems, one line each."""
    if len(problems) == 1:
        raise TrainingSettingsError(problems[0])
    if problems:
        raise TrainingSettingsError(
            "this run cannot start:\n" + "\n".join(f"  {problem}" for problem in problems)
        )


def _output_problems(home: Path, name: str) -> list[str]:
    for folder in (home / "runs" / name, home / "adapters" / name):
        try:
            check_writable(folder)
        except OSError as error:
            return [f"--home {home}: {folder} cannot be written ({error.strerror}); choose another folder"]
    return []


def _optimizer_problems(settings: TrainSettings, hardware: Hardware) -> list[str]:
    if settings.optimizer != "adamw-8bit":
        return []
    if hardware.device != "cuda":
        return ["--optimizer adamw-8bit needs an NVIDIA GPU; use --optimizer adamw"]
    if not has_bitsandbytes():
        return ["--optimizer adamw-8bit needs bitsandbytes (pip install bitsandbytes); use --optimizer adamw"]
    return []


def _method_problems(settings: TrainSettings, base: ResolvedBase) -> list[str]:
    problems = []
    method = METHODS[settings.method]
    quantisation = quantisation_of(base)
    if quantisation not in (None, "compressed-tensors"):
        problems.append(
            f"--base {base.reference}: it is quantised with {quantisation!r}, which cannot be dequantised for "
            "training; use one in compressed-tensors format or the unquantised one"
        )
    elif method.name == "loftq" and quantisation is None:
        problems.append(
            f"--method loftq starts from what quantisation lost, and {base.name} is not quantised: quantise it and "
            "name it as --original-base then, or use --method pissa"
        )
    elif method.name == "loftq" and settings.original_base is None:
        problems.append("--method loftq needs --original-base, the base before it was quantised")
    if settings.push is not None and not method.servable:
        problems.append(f"--push: --method {method.name} cannot be served, because {method.why_not}")
    return problems


def _target_problems(settings: TrainSettings, passport: Passport) -> list[str]:
    if settings.method == "prefix" and passport.facts.model_type in LATENT_ATTENTION:
        return [
            f"--method prefix: {passport.name} keeps one latent for all heads (MLA), and PEFT's prefixes are keys "
            "and values of each; use --method prompt, or lora"
        ]
    if ALL_LINEAR in settings.targets:
        return []
    known = passport.facts.linear_suffixes()
    left_out = left_out_modules(passport.facts)
    problems = [f"--targets {name}: {left_out[name]}" for name in settings.targets if name in left_out]
    unknown = [target for target in settings.targets if target not in known]
    if unknown:
        problems.append(
            f"--targets {','.join(unknown)}: the base has no such layers, only {', '.join(known)}"
        )
    return problems
