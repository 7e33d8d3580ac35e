"""Second moments of what goes into linear layers, gathered while a model reads rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bases.progress import Progress


@dataclass(slots=True)
class Moments:
    """Sums of x x^T over tokens, [in, in] in float64; layers that read the same states share one."""

    sums: dict[str, Any] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)
    num_tokens: int = 0

    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Layer that owns a moment -> the layers that read the same states, itself among them."""
        grouped: dict[str, list[str]] = {}
        for module, owner in self.owner.items():
            grouped.setdefault(owner, []).append(module)
        return {owner: tuple(modules) for owner, modules in grouped.items()}


def gather_moments(
    model: Any, modules: Collection[str], rows: Sequence[Sequence[int]], *, progress: Progress | None = None
) -> Moments:
    """Moments of the inputs of `modules` while `model` reads `rows` of token ids, one row at a time.

    The inputs are those before a layer rounds them: what an adapter on that layer sees. Products are made in the
    states' own type for one row and summed in float64.
    """
    import torch

    moments = Moments()
    inner = model.base_model
    with torch.inference_mode(), _watching(model, modules, moments):
        for number, row in enumerate(rows, start=1):
            inner(input_ids=torch.tensor([list(row)], device=model.device), use_cache=False)
            moments.num_tokens += len(row)
            if progress is not None and number % max(1, len(rows) // 4) == 0:
                progress(f"Reading calibration rows: {number} of {len(rows)}")
    return moments


@contextmanager
def _watching(model: Any, modules: Collection[str], moments: Moments) -> Iterator[None]:
    last: list[Any] = [None, ""]  # the states seen last and the layer that saw them first

    def see(name: str, states: Any) -> None:
        if states is not last[0]:
            last[:] = [states, name]
            rows = states.detach().reshape(-1, states.shape[-1]).float()
            product = (rows.T @ rows).double()
            if name in moments.sums:
                moments.sums[name] += product
            else:
                moments.sums[name] = product
        moments.owner[name] = last[1]

    handles = [
        # Before every other hook: a layer that rounds its inputs does so in one.
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: see(name, args[0]), prepend=True
        )
        for name in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
