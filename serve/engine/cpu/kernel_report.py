"""Lets the front end ask the worker which kernels compute the quantised layers, instead of guessing.

vLLM logs its choice in a process whose log nobody reads. The method is added to vLLM's workers, where
`collective_rpc("linear_kernels")` finds it by name.
"""

from __future__ import annotations

from typing import Any

METHOD = "linear_kernels"


def install() -> None:
    """Add the method to what all workers of vLLM inherit from; again changes nothing."""
    from vllm.v1.worker.worker_base import WorkerBase

    setattr(WorkerBase, METHOD, linear_kernels)


def linear_kernels(worker: Any) -> dict[str, int]:
    """Number of quantised layers by class of kernel; ours with what computes them, as in `HotswapX[native]`.

    Also what became of the output layer, where 8 bits were asked for.
    """
    from serve.engine.cpu import lm_head_8
    from serve.engine.cpu.lowbit import ops

    counts: dict[str, int] = {}
    kernels: dict[int, Any] = {}  # a layer and its wrapper for adapters name the same one
    for module in worker.get_model().modules():
        head = lm_head_8.describe(module)
        if head is not None:
            counts[f"{head}[{ops.available()}]"] = 1
        for owner in (getattr(module, "scheme", None), getattr(module, "quant_method", None)):
            kernel = getattr(owner, "kernel", None)
            if kernel is not None:
                kernels[id(kernel)] = kernel
    for kernel in kernels.values():
        name = type(kernel).__name__
        if type(kernel).__module__.startswith("serve."):
            name = f"{name}[{ops.available()}]"
        counts[name] = counts.get(name, 0) + 1
    return counts
