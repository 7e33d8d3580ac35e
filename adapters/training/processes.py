"""The processes that train together: one, or those that `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Processes:
    """How many there are and which one this is. Process 0 alone writes and speaks."""

    count: int
    index: int

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def share(self, make: Callable[[], Any]) -> Any:
        """What `make` gives in the first process, in all of them. What it raises there, all raise."""
        if self.count == 1:
            return make()
        from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

        value, error = None, None
        if self.is_first:
            try:
                value = make()
            except Exception as caught:  # noqa: BLE001 - handed on to the other processes, then raised
                error = caught
        shared = [value, error]
        broadcast_object_list(shared)
        if shared[1] is not None:
            raise shared[1]
        return shared[0]


def join_processes(*, on_cpu: bool) -> Processes:
    """Meet the other processes, if a launcher started some."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(1, 0)
    from accelerate import PartialState  # type: ignore[import-untyped]

    state = PartialState(cpu=on_cpu)
    return Processes(state.num_processes, state.process_index)


def from_first_process(value: float, args: Any) -> float:
    """The first process's `value` in all of them; `args` are TrainingArguments."""
    if args.world_size == 1:
        return value
    import torch
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor(value, dtype=torch.float64, device=args.device)).item())
