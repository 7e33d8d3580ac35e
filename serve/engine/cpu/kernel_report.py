"""Lets the front end ask the worker which kernels compute the quantised layers, instead of guessing.

vLLM logs its choice in a process whose log nobody reads. The method is added to vLLM's CPU worker, where
`collective_rpc("linear_kernels")` finds it by name.
"""

from __future__ import annotations

from typing import Any

METHOD = "linear_kernels"


def install() -> None:
    """Add the method to vLLM's CPU worker; again changes nothing."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    setattr(CPUWorker, METHOD, linear_kernels)


def linear_kernels(worker: Any) -> dict[str, int]:
    """Number of quantised layers for each class of kernel, by the class's name."""
    counts: dict[str, int] = {}
    for module in worker.get_model().modules():
        owners = (getattr(module, "scheme", None), getattr(module, "quant_method", None))
        for kernel in (getattr(owner, "kernel", None) for owner in owners):
            if kernel is not None:
                name = type(kernel).__name__
                counts[name] = counts.get(name, 0) + 1
    return counts
