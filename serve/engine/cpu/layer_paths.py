"""Gives layers of a loaded model a shorter way through vLLM's Python, and takes it back again.

vLLM's eager model code asks, in every layer and step, what was settled when the model was loaded: which backend,
which quantisation, whether the layer is split over ranks. On a CPU that is a quarter of a decode step of a small
model. A part (`direct_linear`, `direct_attention`, `direct_decoder`, `native_norms`) looks at each module once,
after loading, and answers with a function that does the same work for that very layer, or with None where it is
not sure. The function goes over the module's `forward` as an attribute of the instance; whatever it does not
expect at run time (three dimensions, no cache yet) it hands to the forward that was there before.

Nothing is shortened while vLLM compiles the model, for the compiler has to see vLLM's own code.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

logger = logging.getLogger(__name__)

# From a module to the function that takes the place of its forward; None leaves the module alone.
Shortener = Callable[[Any], Callable[..., Any] | None]

_MARK = "_hotswap_layer_paths"
_shorteners: dict[str, Shortener] = {}


def install(name: str, shortener: Shortener) -> None:
    """Shorten the modules of every model that vLLM's CPU runner loads from now on; again changes nothing."""
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    _shorteners[name] = shortener
    original: Any = CPUModelRunner.load_model
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> None:
        from vllm.config import CompilationMode

        original(self, *args, **kwargs)
        if self.compilation_config.mode == CompilationMode.NONE:
            counts = shorten(self.model, _shorteners.values())
            logger.info(
                "shorter paths: %s", ", ".join(f"{n} {k}" for k, n in sorted(counts.items())) or "none"
            )

    setattr(load_model, _MARK, True)
    CPUModelRunner.load_model = load_model


def installed() -> dict[str, Shortener]:
    """The shorteners in use in this process, by the name of their part."""
    return dict(_shorteners)


def shorten(model: Any, shorteners: Iterable[Shortener]) -> Counter[str]:
    """Replace the forward of each module that a shortener knows; the numbers, by the module's class.

    One shortener after the other, so that a later one can hold what an earlier one made of inner modules.
    """
    counts: Counter[str] = Counter()
    for shortener in shorteners:
        for module in model.modules():
            forward = shortener(module)
            if forward is not None:
                module.__dict__["forward"] = forward
                counts[type(module).__name__] += 1
    return counts


def restore(model: Any) -> None:
    """Give every module of the model its class's forward again."""
    for module in model.modules():
        module.__dict__.pop("forward", None)
