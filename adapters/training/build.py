"""From settings to a loop: the base, the method on it, the batches, the callbacks and the trainer."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.data.encode import EncodedExample
from adapters.training.arguments import training_arguments
from adapters.training.attention import (
    IMPLEMENTATION,
    contamination,
    obstacle_to_packing,
    register,
    sharing_error,
)
from adapters.training.base_model import load_training_model
from adapters.training.batches import StepBatches, evaluation_batches
from adapters.training.callbacks.adalora import RankAllocation
from adapters.training.callbacks.best_weights import BestWeights
from adapters.training.callbacks.cadence import Cadence
from adapters.training.callbacks.early_stopping import EarlyStopping
from adapters.training.callbacks.ema import Ema
from adapters.training.callbacks.interruption import Interruption
from adapters.training.callbacks.plateau import Plateau
from adapters.training.callbacks.progress import ProgressBar
from adapters.training.callbacks.tensorboard import TensorBoardMetrics
from adapters.training.callbacks.time_budget import TimeBudget
from adapters.training.callbacks.update_size import UpdateSize
from adapters.training.collate import PackedCollator, PaddedCollator
from adapters.training.fused_lora import fuse_lora
from adapters.training.loop import Loop
from adapters.training.memory import MemoryEstimate, estimate_memory
from adapters.training.methods.method import Method, PreparedModel, prepare_model
from adapters.training.methods.targets import name_targets
from adapters.training.preflight import Preflight, check_memory
from adapters.training.processes import Processes
from adapters.training.run_folder import Resumption
from adapters.training.schedule import RunClock, rate_factor
from adapters.training.settings import DEFAULT_EPOCHS, TrainSettings
from adapters.training.trainer import AdapterTrainer
from bases.architecture import ArchitectureFacts
from bases.processor import available_memory_bytes
from bases.resolve import ResolvedBase

_MAX_CONTAMINATION = 0.01  # of the largest hidden value; rounding in mixtures of experts stays below
_MAX_CHECK_TOKENS = 256
_MEMORY_TO_FILL = 0.6  # the estimate is right within a third
_EVALUATION_TOKENS = 2048  # per batch, if a step is not larger


def planned_steps(settings: TrainSettings, num_examples: int) -> int:
    """Optimiser steps of the whole run, if time does not end it."""
    epochs = settings.epochs if settings.epochs is not None else DEFAULT_EPOCHS
    by_epochs = max(1, math.ceil(epochs * num_examples / settings.batch_size))
    if settings.max_steps is None:
        return by_epochs
    return settings.max_steps if settings.epochs is None else min(settings.max_steps, by_epochs)


def build_loop(
    *,
    settings: TrainSettings,
    method: Method,
    base: ResolvedBase,
    facts: ArchitectureFacts,
    flight: Preflight,
    train: Sequence[EncodedExample],
    validation: Sequence[EncodedExample],
    tokenizer: Any,
    task_weights: Mapping[str, float],
    folder: Path,
    processes: Processes,
    resumption: Resumption | None,
    say: Callable[[str], None],
    console: Any,
    note: Callable[[str], None],
) -> Loop:
    """Load the base and put everything around it. `note` takes what the manifest should know."""
    settings = name_targets(settings, facts, say)
    on_cpu = flight.hardware.device == "cpu"
    lengths = [len(one.input_ids) for one in train]
    tokens_per_part = math.ceil(
        sum(lengths) / len(lengths) * settings.batch_size / (settings.accumulation_steps * processes.count)
    )
    checkpointing = _choose_checkpointing(settings, facts, flight, tokens_per_part, processes, on_cpu)
    total_steps = planned_steps(settings, len(train))
    say(f"Loading {base.name}")
    loaded = load_training_model(base, dtype=flight.precision.dtype)
    if loaded.note:
        note(loaded.note)
        say(loaded.note[0].upper() + loaded.note[1:])
    if not on_cpu and processes.count == 1:
        loaded.model.to("cuda")  # decompositions and the look at the attention are slow on a CPU
    packs = _choose_packing(settings, method, loaded.model, train, say, note)
    prepared = _prepare(loaded.model, method, settings, folder, processes, resumption)
    weights = {} if settings.mix == "sampling" else dict(task_weights)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    collate: PackedCollator | PaddedCollator = PaddedCollator(pad or 0, weights)
    if packs:
        shares = _can_share(settings, prepared.model, train)
        collate = PackedCollator(weights, share_prefixes=shares)
    if not _is_sharded():
        fuse_lora(prepared.model)
    clock = RunClock(total_steps)
    plateau = Plateau(factor=settings.plateau_factor, patience=settings.plateau_patience)
    best = BestWeights()
    ema = Ema(settings.ema_decay) if settings.ema_decay is not None else None
    stopping = EarlyStopping(patience=settings.patience, min_relative_gain=settings.min_relative_gain)
    cadence = Cadence(
        clock,
        eval_every_steps=settings.eval_every_steps,
        save_every_steps=settings.save_every_steps,
        evaluates=bool(validation),
    )
    progress = ProgressBar(clock, say=say, console=console)
    callbacks: list[Any] = [TimeBudget(clock), UpdateSize(every_steps=settings.log_every_steps)]
    if method.name == "adalora":
        callbacks.append(RankAllocation(clock))
    if ema is not None:
        callbacks.append(ema)
    interruption = Interruption(say)
    curves = TensorBoardMetrics(
        folder / "tensorboard",
        settings_text=settings.model_dump_json(exclude={"home", "push"}),
        warn=say,
    )
    callbacks += [plateau, best, stopping, cadence, interruption, progress, curves]
    trainer = AdapterTrainer(
        prepared.model,
        training_arguments(
            settings,
            folder=folder / "checkpoints",
            total_steps=total_steps,
            precision=flight.precision,
            checkpointing=checkpointing,
            on_cpu=on_cpu,
        ),
        train=train,
        validation=validation,
        validation_batches=evaluation_batches(
            [len(one.input_ids) for one in validation],
            capacity_tokens=max(tokens_per_part, _EVALUATION_TOKENS),
            padded=not packs,
        ),
        batches=StepBatches(
            lengths,
            total_steps=total_steps,
            batch_size=settings.batch_size,
            accumulation_steps=settings.accumulation_steps,
            num_processes=processes.count,
            process_index=processes.index,
            seed=settings.seed,
            similar_lengths=not packs,
            tasks=[one.task for one in train],
            sampling_weights=_sampling_weights(settings, task_weights),
        ),
        collate=collate,
        tokenizer=tokenizer,
        clock=clock,
        rate_factor=lambda done: rate_factor(
            settings.schedule, progress=done, warmup=settings.warmup, plateau=plateau.multiplier
        ),
        optimizer_factory=_optimizer_factory(method, settings),
        extra_loss=method.extra_loss,
        keep_checkpoints=settings.keep_checkpoints,
        callbacks=callbacks,
    )
    return Loop(
        trainer,
        prepared,
        clock,
        best=best,
        ema=ema,
        stopping=stopping,
        cadence=cadence,
        interruption=interruption,
        progress=progress,
        curves=curves,
        resumption=resumption,
        rebuild=lambda: _prepare_again(base, flight, method, settings, folder),
    )


def _prepare_again(
    base: ResolvedBase, flight: Preflight, method: Method, settings: TrainSettings, folder: Path
) -> PreparedModel:
    """The prepared model as it was before the first step, on the CPU, for values of a sharded one."""
    model = load_training_model(base, dtype=flight.precision.dtype).model
    again = folder / ".again"
    prepared = prepare_model(model, method, settings, folder=again)
    shutil.rmtree(again, ignore_errors=True)
    if prepared.initial_adapter_folder is None:
        return prepared
    return PreparedModel(prepared.model, folder / prepared.initial_adapter_folder.name, prepared.method)


def _choose_checkpointing(
    settings: TrainSettings,
    facts: ArchitectureFacts,
    flight: Preflight,
    tokens_per_part: int,
    processes: Processes,
    on_cpu: bool,
) -> bool:
    """Whether activations are computed twice: as the settings say, else where they would hardly fit in memory.

    Raises TrainingSettingsError when the run does not fit either way.
    """
    if on_cpu:
        available = available_memory_bytes()
    else:
        import torch

        available = torch.cuda.mem_get_info()[0]

    def estimate(checkpointing: bool) -> MemoryEstimate:
        return estimate_memory(
            facts,
            settings,
            bytes_per_number=4 if flight.precision.precision == "fp32" else 2,
            tokens_per_part=tokens_per_part,
            checkpointing=checkpointing,
            num_processes=processes.count if on_cpu else 1,
        )

    checkpointing = settings.gradient_checkpointing
    if checkpointing is None:
        checkpointing = estimate(False).total_bytes > _MEMORY_TO_FILL * available
    check_memory(estimate(checkpointing), available, settings, "machine" if on_cpu else "GPU")
    return checkpointing


def _is_sharded() -> bool:
    """Whether accelerate gathers parameters layer by layer."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))


def _choose_packing(
    settings: TrainSettings,
    method: Method,
    model: Any,
    train: Sequence[EncodedExample],
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> bool:
    """Whether examples are packed. Switches the model's attention when they are; says why when they are not."""
    if not settings.packing:
        return False
    reason = (
        obstacle_to_packing(model) if method.packable else f"{method.name} puts virtual tokens before each"
    )
    if reason is None:
        register()
        before = model.config._attn_implementation
        model.set_attn_implementation(IMPLEMENTATION)
        samples = [one.input_ids for one in sorted(train, key=lambda one: len(one.input_ids))[:3]]
        length = min(map(len, samples))
        other = tuple(
            (token + 1) % model.config.get_text_config().vocab_size for token in samples[0][:length]
        )
        leak = contamination(model, samples[0][:length], other, samples[-1])
        if leak <= _MAX_CONTAMINATION:
            return True
        model.set_attn_implementation(before)
        reason = f"packed examples would see each other ({leak:.1%} of the hidden state)"
    text = f"examples are padded, not packed: {reason}"
    say(text[0].upper() + text[1:])
    note(text)
    return False


def _can_share(settings: TrainSettings, model: Any, train: Sequence[EncodedExample]) -> bool:
    """Whether what examples begin with may be computed once. Dropout would have to differ between them."""
    if settings.dropout > 0.0:
        return False
    longest = max(train, key=lambda one: len(one.input_ids)).input_ids[:_MAX_CHECK_TOKENS]
    return len(longest) >= 4 and sharing_error(model, longest) <= _MAX_CONTAMINATION


def _prepare(
    model: Any,
    method: Method,
    settings: TrainSettings,
    folder: Path,
    processes: Processes,
    resumption: Resumption | None,
) -> PreparedModel:
    """Every process builds the adapter by itself, from the same seed; the first one's folder is the run's."""
    own = folder if processes.is_first and resumption is None else folder / f".again-{processes.index}"
    prepared = prepare_model(model, method, settings, folder=own)
    if own is folder or prepared.initial_adapter_folder is None:
        return prepared
    shutil.rmtree(own, ignore_errors=True)
    return PreparedModel(prepared.model, folder / prepared.initial_adapter_folder.name, prepared.method)


def _sampling_weights(settings: TrainSettings, weights: Mapping[str, float]) -> Mapping[str, float] | None:
    if settings.mix != "sampling" or len(set(weights.values())) < 2:
        return None
    return weights


def _optimizer_factory(
    method: Method, settings: TrainSettings
) -> Callable[[Any, Any, dict[str, Any]], Any] | None:
    create = method.create_optimizer
    if create is None:
        return None
    return lambda model, optimizer_class, options: create(model, optimizer_class, settings, options)
