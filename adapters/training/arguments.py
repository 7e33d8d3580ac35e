"""Our settings as TRL's SFTConfig: everything that transformers would decide by itself is decided here."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adapters.training.precision import PrecisionChoice
from adapters.training.settings import TrainSettings


def training_arguments(
    settings: TrainSettings,
    *,
    folder: Path,
    total_steps: int,
    precision: PrecisionChoice,
    checkpointing: bool,
    on_cpu: bool,
) -> Any:
    """Arguments for AdapterTrainer. `folder` takes the checkpoints."""
    from trl import SFTConfig

    with warnings.catch_warnings():
        # On a machine without a GPU transformers says so about its own default.
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        return SFTConfig(
            output_dir=str(folder),
            max_steps=total_steps,
            per_device_train_batch_size=1,  # the batches come from StepBatches
            gradient_accumulation_steps=settings.accumulation_steps,
            learning_rate=settings.peak_learning_rate,
            optim="adamw_bnb_8bit" if settings.optimizer == "adamw-8bit" else "adamw_torch_fused",
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.clip_norm,
            bf16=precision.precision == "bf16",
            fp16=precision.precision == "fp16",
            use_cpu=on_cpu,
            gradient_checkpointing=checkpointing,
            seed=settings.seed,
            logging_strategy="steps",
            logging_steps=settings.log_every_steps,
            logging_nan_inf_filter=False,  # a loss that is no number ends the run, with a message
            save_strategy="steps",
            save_steps=10**9,  # callbacks/cadence.py says when
            save_total_limit=None,  # the trainer itself removes old ones, after the new one is whole
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_level="error",
            dataloader_num_workers=0,
            dataloader_pin_memory=not on_cpu,
            remove_unused_columns=False,
            average_tokens_across_devices=True,
            router_aux_loss_coef=0.0,  # routers stay as they are
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            include_num_input_tokens_seen="no",
            ddp_find_unused_parameters=False,
        )


def has_bitsandbytes() -> bool:
    """Whether the 8-bit optimiser is installed."""
    return find_spec("bitsandbytes") is not None
