"""Layers kept while a run goes on, so that the same run can go on after an interruption.

llm-compressor keeps nothing between runs, but a layer's result is all that the layers behind it depend on: their
inputs are computed again from the rounded layers (half of the passes, and none of the rounding). Kept under
`<home>/quantize/<place>-<key>/`: the place stands for the output folder, the key for all that decides the result.
Numbers are kept as they are in memory, so a run that went on makes the same bytes as one that was not interrupted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bases.disk import disk_errors

_FORMAT = 1  # raise when layers are kept in another way
_KEPT_SECONDS = 7 * 86_400
KEPT_FOLDERS = f"{'[0-9a-f]' * 16}-*"  # of `<home>/quantize`, where measurements lie, too
_LIBRARIES = ("llmcompressor", "compressed-tensors", "torch", "transformers")


def run_key(*parts: Any) -> str:
    """sha256 (hex, 32 digits) over JSON parts that decide a run's result, and the libraries that make it."""
    libraries = [version(name) for name in _LIBRARIES]
    text = json.dumps([_FORMAT, libraries, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class KeptLayers:
    """The layers of one run on disk. Pass and layer are numbers from 0."""

    def __init__(self, home: Path, out: Path, key: str) -> None:
        self._folder = home / "quantize" / f"{place_key(out)}-{key}"
        self.taken_over = 0
        """Layers that were not computed again."""

    def restore(self, pass_number: int, layer: int, modules: Sequence[tuple[str, Any]]) -> bool:
        """Put a kept layer into `modules` (name, module); False where it is not kept."""
        from compressed_tensors.offload import update_offload_parameter
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(pass_number, layer)
        if not path.is_file():
            return False
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError):  # cut short by a machine that stopped: made anew
            return False
        for full, module, name in _owned(modules):
            update_offload_parameter(module, name, tensors[full])
        self.taken_over += 1
        return True

    def keep(self, pass_number: int, layer: int, modules: Sequence[tuple[str, Any]]) -> None:
        """Write a finished layer, in one step. Raises OSError where there is no room for it."""
        from safetensors.torch import save_file

        path = self._path(pass_number, layer)
        partial = path.with_suffix(".partial")
        values = {
            full: getattr(module, name).detach().cpu().contiguous() for full, module, name in _owned(modules)
        }
        try:
            with disk_errors():
                self._folder.mkdir(parents=True, exist_ok=True)
                save_file(values, partial)
                partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def has_all(self, pass_number: int, num_layers: int) -> bool:
        """Whether every layer of a pass is kept: then nothing need be handed from layer to layer."""
        return all(self._path(pass_number, layer).is_file() for layer in range(num_layers))

    def forget(self) -> None:
        """Remove what is kept of this run."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, pass_number: int, layer: int) -> Path:
        return self._folder / f"pass-{pass_number}-layer-{layer:04d}.safetensors"


def forget_others(home: Path, out: Path, key: str) -> None:
    """Remove what runs into `out` with other keys kept, and what no run came back for in a week.

    The caller holds the lock of `out`.
    """
    folder, place = home / "quantize", place_key(out)
    for path in folder.glob(KEPT_FOLDERS) if folder.is_dir() else ():
        name, _, theirs = path.name.partition("-")
        old = time.time() - path.stat().st_mtime > _KEPT_SECONDS
        if path.is_dir() and theirs != key and (name == place or old):
            shutil.rmtree(path, ignore_errors=True)


def place_key(out: Path) -> str:
    """Short name of an output folder within the home."""
    return hashlib.sha256(str(out).encode()).hexdigest()[:16]


def _owned(modules: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Any, str]]:
    """(full name, module, own name) of every parameter and buffer that `modules` hold themselves."""
    for module_name, module in modules:
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{module_name}.{name}", module, name
