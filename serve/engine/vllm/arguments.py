"""Settings of the engine that fit the machine, each with its reason, and the user's own on top.

vLLM's defaults are made for GPUs and stay as they are there. On a CPU they cost a factor: bfloat16 where it is
emulated, one core kept idle, a KV cache of half the memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bases.processor import AVX2, simulated_isa
from serve.engine.cpu.isa import AVX2_ENVIRONMENT
from serve.engine.cpu.kernel_choice import KERNELS_VARIABLE
from serve.engine.cpu.lm_head_8 import BITS_VARIABLE
from serve.engine.cpu.plugin import PATCHES_VARIABLE, CpuPart, requested_parts
from serve.engine.niceness import NICENESS_VARIABLE
from serve.engine.vllm.machine import Machine
from serve.engine.vllm.quantisation import Quantisation
from serve.errors import SettingsError
from serve.settings import GIB

CPU_MAX_NUM_SEQS = 64
CPU_KV_CACHE_SHARE = 0.25
CPU_KV_CACHE_MAX_BYTES = 8 * GIB
KV_BLOCK_TOKENS = 128
CPU_PATCHES = "all"
# What the compiled kernels leave to oneDNN. It makes code for every number of rows that a layer is given, of which
# each of its copies would keep 1024; torch keeps 1024 once more, some 0.4 MB each, whatever oneDNN lets go.
CPU_KEPT_PRODUCTS = 128
CPU_KEPT_TORCH_PRODUCTS = 64

# Families whose attention vLLM runs over a latent (MLA), or else over whole keys and values.
_EITHER_ATTENTION = frozenset({"deepseek_v2", "deepseek_v3"})
# Families whose attention chooses tokens by an index, which vLLM 0.32 has for GPUs alone
# (CpuPlatform.get_attn_backend_cls: "Sparse Attention is not supported on CPU").
_SPARSE_ATTENTION = frozenset({"deepseek_v32", "glm_moe_dsa"})
# CPUAttentionBackend.get_supported_head_sizes in vllm/v1/attention/backends/cpu_attn.py.
_CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)

_POLICY = "scheduling-policy"
# Arguments that another setting of the gateway owns, or that would open what the gateway closes.
_OWNED = {
    "model": "--base",
    "served-model-name": "--served-model-name",
    "trust-remote-code": "--trust-remote-code",
    "enable-lora": "nothing: it is always on",
    "max-loras": "--max-loras",
    "max-cpu-loras": "--max-cpu-loras",
    "max-lora-rank": "--max-lora-rank",
    "lora-target-modules": "nothing: what an adapter may have is checked before it is loaded",
    "lora-modules": "hotswap adapters load",
    "max-num-seqs": "--max-num-seqs",
    "max-model-len": "--max-model-len",
    "dtype": "--dtype",
    "kv-cache-memory-bytes": "--kv-cache-gib",
    "reasoning-parser": "--reasoning",
    "tool-call-parser": "--tool-parser",
    "logprobs-mode": "nothing: logprobs are natural logarithms before penalties and temperature",
    "host": "--host",
    "port": "--port",
    "api-key": "HOTSWAP_ADMIN_KEY",
    "enable-prompt-embeds": "nothing: it is unsafe",
    "allowed-local-media-path": "nothing: the gateway takes text alone",
    "trust-request-chat-template": "nothing: it is unsafe",
}


@dataclass(frozen=True, slots=True)
class EngineWishes:
    """What the user asked for; None leaves the choice to the machine."""

    model_path: str
    model_name: str
    context_tokens: int  # of the base, as its config says
    kv_values_per_token: int  # numbers that one token leaves in the KV cache
    dtype: str
    max_model_len: int | None
    kv_cache_gib: float | None
    max_num_seqs: int | None
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    cpu_patches: str
    reasoning_parser: str | None
    tool_parser: str | None
    trust_remote_code: bool
    structured_outputs: bool
    extra: Sequence[str]
    lora_targets: tuple[str, ...] | None = None  # layers that take adapters, by the last part of their names
    model_type: str = ""  # as in the base's config.json
    head_size: int | None = None  # of queries and keys; None: not looked at
    quantisation: Quantisation | None = None  # of the base's weights
    niceness: int = 0  # of the engine's process on a CPU
    cpu_kernels: str = "auto"  # whose kernels compute quantised layers
    lm_head_bits: int | None = None  # of the output layer; 8 was measured and passed


@dataclass(slots=True)
class EngineArguments:
    """Command-line arguments for vLLM's own parser, environment variables, and why each was chosen."""

    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def argument(self, name: str, value: object, reason: str) -> None:
        """`--name value`; `value` True is a bare flag."""
        self.arguments.append(f"--{name}" if value is True else f"--{name}={value}")
        self.notes[name] = f"{'on' if value is True else value} ({reason})"

    def variable(self, name: str, value: str, reason: str) -> None:
        """An environment variable, which the user's own value beats."""
        chosen = os.environ.get(name)
        if chosen is not None:
            self.notes[name] = f"{chosen} (from the environment)"
            return
        self.environment[name] = value
        self.notes[name] = f"{value} ({reason})"


def choose_arguments(machine: Machine, wishes: EngineWishes) -> EngineArguments:
    """Everything vLLM is started with. Raises SettingsError for an argument that belongs to another setting."""
    chosen = EngineArguments()
    if wishes.quantisation is not None:
        problem = wishes.quantisation.problem(machine.device)
        if problem is not None:
            raise SettingsError(f"{wishes.model_name} cannot be served on this machine: {problem}.")
        chosen.notes["quantisation"] = f"{wishes.quantisation.scheme} (weights of the base)"
    chosen.argument("model", wishes.model_path, "the base")
    chosen.argument("served-model-name", wishes.model_name, "public name of the base")
    chosen.argument("enable-lora", True, "adapters come and go while it runs")
    chosen.argument("max-loras", wishes.max_loras, "adapters in one batch")
    chosen.argument("max-cpu-loras", wishes.max_cpu_loras, "adapters kept in memory, least recently used go")
    chosen.argument("max-lora-rank", wishes.max_lora_rank, "each slot is allocated at this rank")
    if wishes.lora_targets is not None:
        chosen.arguments += ["--lora-target-modules", *wishes.lora_targets]
        chosen.notes["lora-target-modules"] = (
            f"{' '.join(wishes.lora_targets)} (no adapter reaches the experts)"
        )
    if wishes.trust_remote_code:
        chosen.argument("trust-remote-code", True, "asked for")
    if wishes.reasoning_parser is not None:
        chosen.argument("reasoning-parser", wishes.reasoning_parser, "the base thinks aloud")
    if wishes.tool_parser is not None:
        chosen.argument("tool-call-parser", wishes.tool_parser, "asked for")
        chosen.argument("enable-auto-tool-choice", True, "goes with the tool parser")
    if wishes.structured_outputs:
        chosen.argument(
            "structured-outputs-config.backend",
            "xgrammar",
            "the one backend whose compile time is bounded here before the engine sees a schema",
        )
    chosen.variable("VLLM_LOGGING_LEVEL", "ERROR", "its warnings run to hundreds of lines; INFO shows all")
    chosen.variable("VLLM_NO_USAGE_STATS", "1", "nothing is reported to anybody")
    chosen.variable("VLLM_MAX_N_SEQUENCES", "64", "a request cannot ask for thousands of sequences")
    chosen.variable("VLLM_MAX_STOP_STRINGS", "16", "as many as the gateway takes; vLLM's handlers take 4")
    if machine.device == "cpu":
        _choose_for_cpu(machine, wishes, chosen)
    else:
        # vLLM's choice on a CPU. A fork would take the gateway's sockets along, and miss the plugin.
        if wishes.lm_head_bits is not None:
            raise SettingsError(
                f"--lm-head-bits {wishes.lm_head_bits} is for CPUs, and this machine serves on {machine.device}; "
                "leave it out, or give a base that is quantised."
            )
        chosen.variable(
            "VLLM_WORKER_MULTIPROC_METHOD", "spawn", "the engine starts from nothing, each time alike"
        )
        if wishes.max_model_len is not None:
            chosen.argument("max-model-len", wishes.max_model_len, "asked for")
        if wishes.dtype != "auto":
            chosen.argument("dtype", wishes.dtype, "asked for")
        if wishes.max_num_seqs is not None:
            chosen.argument("max-num-seqs", wishes.max_num_seqs, "asked for")
    for text in wishes.extra:
        _add_extra(text, chosen)
    if _POLICY not in chosen.notes:
        chosen.argument(_POLICY, "priority", "a probe of an adapter goes ahead of what waits in the engine")
    return chosen


def _choose_for_cpu(machine: Machine, wishes: EngineWishes, chosen: EngineArguments) -> None:
    _refuse_for_cpu(wishes)
    if wishes.dtype != "auto":
        dtype, reason = wishes.dtype, "asked for"
    elif _suits_float32(machine, wishes):
        dtype, reason = "float32", "for weights of few bits it is the faster one, and rounds no inputs"
    elif machine.native_bf16:
        dtype, reason = "bfloat16", "this processor multiplies bfloat16 natively"
    else:
        dtype, reason = "float32", "this processor only emulates bfloat16, at a fraction of the speed"
    chosen.argument("dtype", dtype, reason)
    chosen.argument("enforce-eager", True, "vLLM does not compile with adapters on CPU, and starts faster")
    chosen.argument(
        "max-num-seqs",
        wishes.max_num_seqs or CPU_MAX_NUM_SEQS,
        "asked for" if wishes.max_num_seqs else "a wider batch only makes every answer slower on a CPU",
    )
    if wishes.kv_cache_gib is not None:
        num_bytes, reason = int(wishes.kv_cache_gib * GIB), "asked for"
    else:
        share = int(machine.available_bytes * CPU_KV_CACHE_SHARE)
        num_bytes, reason = (
            min(share, CPU_KV_CACHE_MAX_BYTES),
            "a quarter of the free memory, at most 8 GiB",
        )
    chosen.argument("kv-cache-memory-bytes", num_bytes, reason)
    _choose_context(wishes, chosen, kv_cache_tokens=num_bytes // _bytes_per_token(wishes, dtype))
    if wishes.model_type in _EITHER_ATTENTION:
        chosen.variable(
            "VLLM_MLA_DISABLE",
            "1",
            "on a CPU its latent attention has no prefix cache, whole prompts alone and one latent size",
        )
    cores = ",".join(str(core) for core in machine.cores)
    chosen.variable("VLLM_CPU_OMP_THREADS_BIND", cores, "all cores; vLLM would keep one idle")
    chosen.variable(
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
        str(CPU_KEPT_PRODUCTS),
        "products of other widths are prepared anew; eight times as many would grow to most of a gigabyte",
    )
    chosen.variable(
        "LRU_CACHE_CAPACITY",
        str(CPU_KEPT_TORCH_PRODUCTS),
        "torch's own record of them; what it has forgotten oneDNN still knows",
    )
    patches = _patches(wishes)
    if wishes.lora_targets is not None and CpuPart.MOE_EXPERTS not in requested_parts(patches):
        raise SettingsError(
            f"--cpu-patches {wishes.cpu_patches}: {wishes.model_name} has experts, and vLLM would end with its "
            f"first request; add {CpuPart.MOE_EXPERTS.value} (docs/upstream-defects.md)"
        )
    _refuse_without_kernel(machine, wishes, dtype, requested_parts(patches))
    # Written whatever the environment says: there the variables hold the settings, which may be `auto`.
    chosen.environment[PATCHES_VARIABLE] = patches
    chosen.notes["cpu-patches"] = f"{patches or 'none'} (mends of vLLM on CPU)"
    chosen.environment[KERNELS_VARIABLE] = wishes.cpu_kernels
    chosen.environment[NICENESS_VARIABLE] = str(wishes.niceness)
    if wishes.lm_head_bits is not None:
        chosen.environment[BITS_VARIABLE] = str(wishes.lm_head_bits)
        chosen.notes["lm-head-bits"] = f"{wishes.lm_head_bits} (asked for; measured on this base)"
    if simulated_isa() == AVX2:
        for name, value in AVX2_ENVIRONMENT.items():
            chosen.environment[name] = value
            chosen.notes[name] = f"{value} (simulates a processor without AVX-512)"


def _suits_float32(machine: Machine, wishes: EngineWishes) -> bool:
    """Our kernels read the same few bits in either format, and compute in float32 (docs/quantisation-report.md)."""
    base = wishes.quantisation
    return (
        base is not None
        and base.weight_only
        and machine.low_bit_compiled
        and wishes.cpu_kernels != "vllm"
        and CpuPart.LOWBIT_WNA16 in requested_parts(_patches(wishes))
    )


def _patches(wishes: EngineWishes) -> str:
    asked = CPU_PATCHES if wishes.cpu_patches == "auto" else wishes.cpu_patches
    return "" if asked == "none" else asked


def _refuse_without_kernel(
    machine: Machine, wishes: EngineWishes, dtype: str, parts: frozenset[CpuPart]
) -> None:
    """Raise SettingsError where vLLM would die while it loads a quantised base, or of its first request."""
    base = wishes.quantisation
    if base is None or base.scheme == base.method:  # a method that is not looked into
        return
    if base.fixed_inputs and not machine.vnni:
        raise SettingsError(
            f"{wishes.model_name} cannot be served on this machine: it rounds inputs with fixed scales "
            f"({base.scheme}), which vLLM computes wrongly on a processor without VNNI. Quantise it with scales "
            "per token, e.g. int8-dynamic."
        )
    needed: list[tuple[CpuPart, str]] = []
    if base.weight_only and (not machine.avx512 or dtype == "float32"):
        how = "in float32" if machine.avx512 else "without AVX-512"
        needed.append((CpuPart.LOWBIT_WNA16, f"has no kernel for it {how}"))
    if base.rounds_inputs:
        if machine.vnni:
            needed.append((CpuPart.LORA_DEVICE, "does not load such a base while adapters are enabled"))
        else:
            needed.append((CpuPart.LOWBIT_W8A8, "computes it wrongly without VNNI"))
    for part, lack in needed:
        if part not in parts:
            raise SettingsError(
                f"--cpu-patches {wishes.cpu_patches}: {wishes.model_name} is quantised ({base.scheme}), and vLLM "
                f"{lack}; add {part.value} (docs/upstream-defects.md)"
            )


def _refuse_for_cpu(wishes: EngineWishes) -> None:
    """Raise SettingsError for a base whose attention vLLM has not on a CPU, which it says after a long start."""
    if wishes.model_type in _SPARSE_ATTENTION:
        raise SettingsError(
            f"{wishes.model_name} ({wishes.model_type}) cannot be served on a CPU: its sparse attention needs a "
            "GPU in vLLM. Serve it on a GPU, or choose another base."
        )
    if wishes.head_size is not None and wishes.head_size not in _CPU_HEAD_SIZES:
        raise SettingsError(
            f"{wishes.model_name} cannot be served on a CPU: its attention heads are {wishes.head_size} wide, and "
            f"vLLM's attention on a CPU has {', '.join(map(str, _CPU_HEAD_SIZES))}. Serve it on a GPU, or choose "
            "another base."
        )


def _bytes_per_token(wishes: EngineWishes, dtype: str) -> int:
    return max(1, wishes.kv_values_per_token * (4 if dtype == "float32" else 2))


def _choose_context(wishes: EngineWishes, chosen: EngineArguments, *, kv_cache_tokens: int) -> None:
    """vLLM does not start when the KV cache cannot hold one request as long as the context; a block stays empty."""
    fits = (kv_cache_tokens // KV_BLOCK_TOKENS - 1) * KV_BLOCK_TOKENS
    if wishes.max_model_len is not None:
        chosen.argument("max-model-len", wishes.max_model_len, "asked for")
    elif wishes.context_tokens > fits:
        chosen.argument(
            "max-model-len", max(fits, KV_BLOCK_TOKENS), "as much of the context as the KV cache holds"
        )


def _add_extra(text: str, chosen: EngineArguments) -> None:
    name, equals, value = text.partition("=")
    name = name.strip().removeprefix("--").replace("_", "-")
    if not name:
        raise SettingsError(
            f"--engine-arg {text!r} has no name; write name=value, e.g. tensor-parallel-size=2"
        )
    # vLLM's parser also takes beginnings of names, and `no-` in front of switches.
    owned = next((full for full in _OWNED if full.startswith(name.removeprefix("no-"))), None)
    if owned is not None:
        raise SettingsError(f"--engine-arg {name} cannot be passed to the engine; use {_OWNED[owned]}")
    chosen.argument(name, value.strip() if equals else True, "asked for")


def describe(notes: Mapping[str, str]) -> list[str]:
    """One line per choice, for the log."""
    return [f"{name} = {value}" for name, value in notes.items()]
