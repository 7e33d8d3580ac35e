"""Lets the front end ask the worker how long the stages of its start took.

vLLM logs them in a process whose log nobody reads. The methods of vLLM's worker are timed where they are defined,
and `collective_rpc("start_report")` finds the answer by name, as in `kernel_report`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from serve.observability.startup import process_began

METHOD = "start_report"
PROCESS_BEGAN = "engine: process begun"
IMPORTED = "engine: libraries imported"
# Methods of vLLM's worker, in the order in which it is started, and what has happened at their end.
STAGES = MappingProxyType(
    {
        "init_device": "engine: worker set up",
        "load_model": "engine: weights loaded",
        "initialize_from_config": "engine: KV cache made",
        "compile_or_warm_up_model": "engine: model warmed up",
    }
)

_ended: dict[str, float] = {}  # on the clock of `time.monotonic`
_MARK = "_hotswap_timed"


def install() -> None:
    """Time the stages, and add the method that tells them; again changes nothing."""
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker
    from vllm.v1.worker.worker_base import WorkerBase

    _ended.setdefault(PROCESS_BEGAN, process_began())
    _ended.setdefault(IMPORTED, time.monotonic())
    for owner in (CPUWorker, Worker):
        for name, stage in STAGES.items():
            method = vars(owner).get(name)
            if method is not None and not hasattr(method, _MARK):
                setattr(owner, name, _timed(method, stage))
    setattr(WorkerBase, METHOD, start_report)


def start_report(worker: Any) -> dict[str, float]:
    """When each stage ended, on the clock of `time.monotonic`; only those that were passed."""
    del worker
    return dict(_ended)


def _timed(method: Callable[..., Any], stage: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def timed(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        _ended[stage] = time.monotonic()
        return result

    setattr(timed, _MARK, True)
    return timed
