"""Reads an adapter's tensors without leaving anything of them behind.

Defect (safetensors 0.8.0; memory): `safe_open(..., framework="pt").get_tensor` leaves two Python integers behind
for each tensor, the places at which it cut the file's storage. vLLM 0.32.0 reads adapters so
(`LoRAModel.from_local_checkpoint`): an adapter on two of the layers of each of 30 blocks leaves 7.5 KiB for each of
its versions, for as long as the engine lives.

Mend: vLLM's reading of adapters goes through `safetensors.torch.load`, which leaves nothing behind but holds the
file twice for a moment. Files of more than MOST_BYTES are read as before: what is left of them is the less beside
the time that they take.

Can go when `get_tensor` leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MOST_BYTES = 64 * 1024**2


def install() -> None:
    """Let vLLM read adapters through `opened`; again changes nothing."""
    from vllm.lora import lora_model

    module: Any = lora_model.safetensors
    if not isinstance(module, SimpleNamespace):
        lora_model.safetensors = SimpleNamespace(safe_open=_opening(module.safe_open))


class Tensors:
    """A file's tensors by their names; in place of the handle that `safe_open` gives."""

    def __init__(self, path: Path) -> None:
        """Read the whole file. Raises OSError, SafetensorError."""
        from safetensors.torch import load

        self._tensors = load(path.read_bytes())

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        self._tensors = {}

    def keys(self) -> Iterable[str]:
        """The names of the tensors."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> Any:
        """One tensor on the CPU. Raises KeyError for a name that the file does not have."""
        return self._tensors[name]


def _opening(safe_open: Callable[..., Any]) -> Callable[..., Any]:
    def opened(path: str, framework: str) -> Any:
        """What `safe_open` would give, of a small file with nothing left behind."""
        file = Path(path)
        return Tensors(file) if file.stat().st_size <= MOST_BYTES else safe_open(path, framework=framework)

    return opened
