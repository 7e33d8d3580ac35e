"""Device and number format of a run, with the reason for the choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from adapters.errors import TrainingSettingsError
from bases.processor import NATIVE_BF16_FLAGS, read_cpuinfo

Device = Literal["cpu", "cuda"]
Precision = Literal["bf16", "fp16", "fp32"]
_BF16_CAPABILITY = (8, 0)  # NVIDIA Ampere, the first that multiplies bfloat16


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the choice depends on."""

    device: Device
    native_bf16: bool
    name: str


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """The format in which products are computed and the base is held, and why it is that one."""

    precision: Precision
    reason: str

    @property
    def dtype(self) -> Any:
        """The torch type of the base's weights."""
        import torch

        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.precision]


def read_hardware(device: Literal["auto", "cpu", "cuda"]) -> Hardware:
    """Look at the GPU, or the processor's instructions. Raises TrainingSettingsError for cuda without a GPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingSettingsError("--device cuda: PyTorch sees no GPU here; use --device cpu or auto.")
    if device != "cpu" and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        name = f"{torch.cuda.get_device_name()} (compute capability {capability[0]}.{capability[1]})"
        return Hardware("cuda", capability >= _BF16_CAPABILITY, name)
    flags, name = read_cpuinfo()
    return Hardware("cpu", bool(flags & NATIVE_BF16_FLAGS), name)


def choose_precision(wish: Literal["auto", "bf16", "fp16", "fp32"], hardware: Hardware) -> PrecisionChoice:
    """bf16 where the device multiplies it natively, fp32 elsewhere; a wish is taken, with its price named.

    Raises TrainingSettingsError for fp16 on a CPU: its gradients need scaling, which exists for GPUs alone.
    """
    if wish == "auto":
        if hardware.native_bf16:
            return PrecisionChoice("bf16", f"{hardware.name} multiplies bfloat16")
        return PrecisionChoice("fp32", f"{hardware.name} does not multiply bfloat16")
    if wish == "fp16" and hardware.device == "cpu":
        raise TrainingSettingsError(
            "--precision fp16 needs a GPU: small gradients vanish in float16 and PyTorch scales them there alone. "
            "Use --precision auto."
        )
    if wish == "bf16" and not hardware.native_bf16:
        return PrecisionChoice("bf16", f"asked for; {hardware.name} only emulates bfloat16, which is slow")
    return PrecisionChoice(wish, "asked for")
