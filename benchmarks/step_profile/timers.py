"""Puts a stopwatch on the parts of a running engine, and takes it off again."""

from __future__ import annotations

from typing import Any

from benchmarks.step_profile.stopwatch import Stopwatch

PRODUCTS = "large products"
ATTENTION = "attention"
SMALL = "norms, rotation, activation"
ADAPTERS = "adapter wrapper"
OUTPUT_LAYER = "output layer"
MODEL = "rest of the model's Python"
RUNNER = "preparation of inputs"
SAMPLER = "sampler"
SCHEDULER = "scheduler"
CORE = "engine core loop"
FRONT = "output processing, detokeniser"
LABELS = (
    PRODUCTS,
    OUTPUT_LAYER,
    ATTENTION,
    SMALL,
    ADAPTERS,
    MODEL,
    RUNNER,
    SAMPLER,
    SCHEDULER,
    CORE,
    FRONT,
)

_BY_CLASS = {"Attention": ATTENTION, "RMSNorm": SMALL, "SiluAndMul": SMALL}


class Timers:
    """Timed functions as attributes of instances: removing the attribute brings the class's own back."""

    def __init__(self, engine: Any) -> None:
        """`engine` is vLLM's LLMEngine with its core in this process."""
        self.stopwatch = Stopwatch()
        self._engine = engine
        self._core = engine.engine_core.engine_core
        self._runner = self._core.model_executor.driver_worker.worker.model_runner
        self._taken: list[tuple[Any, str, Any]] = []

    def attach(self) -> None:
        """Time every part from now on. Paths that hold a function of before are not timed inside."""
        self._time(self._engine, "step", FRONT)
        self._time(self._core, "step_fn" if hasattr(self._core, "step_fn") else "step", CORE)
        self._time(self._core.scheduler, "schedule", SCHEDULER)
        self._time(self._core.scheduler, "update_from_output", SCHEDULER)
        self._time(self._runner, "execute_model", RUNNER)
        self._time(self._runner, "sample_tokens", SAMPLER)
        self._time(self._runner, "_model_forward", MODEL)
        self._time(self._runner.model, "compute_logits", OUTPUT_LAYER)
        for module in self._runner.model.modules():
            name = type(module).__name__
            if name.endswith("LinearWithLoRA"):
                self._time(module, "forward", ADAPTERS)
            elif "Rotary" in name and hasattr(module, "cos_sin_cache"):
                self._time(module, "forward", SMALL)
            elif name in _BY_CLASS:
                self._time(module, "forward", _BY_CLASS[name])

    def attach_products(self) -> None:
        """Time what multiplies in each linear layer; before the layers' paths are shortened, which hold it."""
        from serve.engine.cpu import direct_linear

        multiplication = direct_linear.multiplication
        self._taken.append((direct_linear, "multiplication", multiplication))
        direct_linear.multiplication = lambda base: self.stopwatch.timed(PRODUCTS, multiplication(base))
        for module in self._runner.model.modules():
            if type(module).__name__.endswith("LinearWithLoRA"):
                base = module.base_layer
                owner, name = (
                    (base, "cpu_linear") if "cpu_linear" in base.__dict__ else (base.quant_method, "apply")
                )
                if not hasattr(getattr(owner, name), "__wrapped__"):
                    self._time(owner, name, PRODUCTS)

    def detach(self) -> None:
        """Take every timer off."""
        for owner, name, before in reversed(self._taken):
            if before is None:
                owner.__dict__.pop(name, None)
            else:
                owner.__dict__[name] = before
        self._taken.clear()

    def _time(self, owner: Any, name: str, label: str) -> None:
        self._taken.append((owner, name, owner.__dict__.get(name)))
        owner.__dict__[name] = self.stopwatch.timed(label, getattr(owner, name))
