"""The layer-by-layer pass of llm-compressor, with progress and with layers kept for going on.

`oneshot` takes the name of a pipeline from llm-compressor's own registry; this one is entered there. It does what
the library's `independent` and `sequential` pipelines do (llmcompressor/pipelines/, 0.14): a pass of its own for
each modifier; in a pass, layer after layer sees the rows, is changed, and hands what it makes of them to the next.
Added are: a word on progress, finished layers on disk, unquantised weights rounded between passes, and no forward
of the last layer, which nobody reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.offload import disable_offloading, remove_dispatch, set_onload_device
from llmcompressor.core import LifecycleCallbacks, active_session
from llmcompressor.modifiers.quantization import QuantizationMixin
from llmcompressor.modifiers.utils.hooks import HooksMixin
from llmcompressor.pipelines import CalibrationPipeline
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.pipelines.sequential.helpers import trace_subgraphs
from llmcompressor.utils.dev import get_main_device
from llmcompressor.utils.helpers import DisableQuantization, calibration_forward_context
from llmcompressor.utils.pytorch.module import infer_sequential_targets

from bases.progress import Progress
from quantize.progress import PassProgress
from quantize.resume import KeptLayers

PIPELINE_NAME = "hotswap"
_WHAT = {
    "GPTQModifier": "Rounding with GPTQ",
    "QuantizationModifier": "Rounding",
    "SmoothQuantModifier": "Smoothing inputs",
    "AWQModifier": "Searching scales (AWQ)",
}


@dataclass(frozen=True, slots=True)
class PassContext:
    """What the pipeline needs and `oneshot` has no argument for."""

    say: Progress
    kept: KeptLayers | None
    after_transform: Callable[[Any], None]
    """Called with the model after a pass that changed weights without quantising them."""


_context: ContextVar[PassContext] = ContextVar("hotswap_quantize_pass")


@contextlib.contextmanager
def passes_with(context: PassContext) -> Iterator[None]:
    """`oneshot(..., pipeline=PIPELINE_NAME)` inside works with `context`."""
    token = _context.set(context)
    try:
        with _without_pinning():
            yield
    finally:
        _context.reset(token)


@CalibrationPipeline.register(PIPELINE_NAME)
class HotswapPipeline(CalibrationPipeline):  # type: ignore[misc]
    """One pass for each modifier; see the module."""

    @staticmethod
    def __call__(model: Any, dataloader: Any, dataset_args: Any) -> None:
        """`dataloader` gives batches of `input_ids` and `attention_mask`; None where no modifier wants any."""
        context = _context.get()
        recipe = active_session().lifecycle.recipe
        modifiers = list(recipe.modifiers)
        try:
            for number, modifier in enumerate(modifiers):
                recipe.modifiers = [modifier]
                if modifier.requires_calibration_data:
                    _run_pass(model, dataloader, dataset_args, number, modifier, context)
                else:
                    _run_without_data(model)
                # Plain parameters again: those of a dispatched model are copies on a GPU, and changes are lost.
                remove_dispatch(model)
                if not isinstance(modifier, QuantizationMixin):
                    context.after_transform(model)
        finally:
            recipe.modifiers = modifiers


def _run_without_data(model: Any) -> None:
    set_onload_device(model, get_main_device())
    LifecycleCallbacks.calibration_start()
    LifecycleCallbacks.sequential_epoch_end(list(model.modules()))
    LifecycleCallbacks.calibration_end()


def _run_pass(
    model: Any, dataloader: Any, dataset_args: Any, number: int, modifier: Any, context: PassContext
) -> None:
    device = get_main_device()
    set_onload_device(model, device)
    subgraphs = trace_subgraphs(
        model,
        next(iter(dataloader)),
        infer_sequential_targets(model, dataset_args.sequential_targets),
        dataset_args.tracing_ignore,
        dataset_args.sequential_targets_per_subgraph,
    )
    state, kept = active_session().state, context.kept
    state.loss_masks, state.sequential_prefetch = None, False
    what = _WHAT.get(type(modifier).__name__, type(modifier).__name__)
    # The last part holds the final norm and the output layer, which no pass changes.
    progress = PassProgress(what, max(1, len(subgraphs) - 1), context.say)
    names = _names_to_keep(model)
    all_kept = kept is not None and kept.has_all(number, len(subgraphs))
    LifecycleCallbacks.calibration_start()
    with contextlib.ExitStack() as stack:
        stack.enter_context(calibration_forward_context(model))
        stack.enter_context(DisableQuantization(model))
        activations = IntermediatesCache.from_dataloader(dataloader, device, torch.device("cpu"))
        for index, subgraph in enumerate(subgraphs):
            modules = subgraph.submodules(model)
            named = [(names[module], module) for module in modules if module in names]
            with disable_offloading():
                if kept is not None and kept.restore(number, index, named):
                    progress.skip()
                else:
                    if index < len(subgraphs) - 1 or len(subgraphs) == 1:
                        progress.start_layer()
                    for batch, inputs in enumerate(activations.iter(subgraph.input_names)):
                        state.current_batch_idx = batch
                        subgraph.forward(model, **inputs)
                    LifecycleCallbacks.sequential_epoch_end(modules)
                    if kept is not None:
                        kept = _keep(kept, number, index, named, context.say)
                    progress.finish_layer()
                if index < len(subgraphs) - 1 and not all_kept:
                    _hand_on(model, subgraph, activations)
    LifecycleCallbacks.calibration_end()


def _keep(
    kept: KeptLayers, number: int, index: int, named: list[tuple[str, Any]], say: Progress
) -> KeptLayers | None:
    """`kept` with one more layer; None where there is no room for it, which is no reason to stop."""
    try:
        kept.keep(number, index, named)
    except OSError as error:
        say(
            f"warning: finished layers cannot be kept from here on ({error.strerror}): after an interruption they "
            "would be made again"
        )
        return None
    return kept


def _hand_on(model: Any, subgraph: Any, activations: Any) -> None:
    """Replace what went into a layer by what the changed layer makes of it."""
    with HooksMixin.disable_hooks():
        for batch, inputs in enumerate(activations.iter(subgraph.input_names)):
            activations.update(batch, subgraph.forward(model, **inputs))
            activations.delete(batch, subgraph.consumed_names)


def _names_to_keep(model: Any) -> dict[Any, str]:
    """Module -> name, without embeddings, which no pass changes."""
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    return {module: name for name, module in model.named_modules() if id(module) not in ends}


@contextlib.contextmanager
def _without_pinning() -> Iterator[None]:
    """AWQ pins cached inputs in memory for an accelerator, and fails where there is none (llm-compressor 0.14)."""
    if torch.accelerator.is_available():
        yield
        return
    pin = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = lambda *_arguments, **_keywords: None
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = pin
