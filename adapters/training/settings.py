"""Every setting of a training run, once: flags of `hotswap train` and `HOTSWAP_TRAIN_*` come from here.

Settings stay at the edge: adapters/training/run.py hands flat values to the classes that need them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from adapters.errors import TrainingSettingsError
from adapters.training.methods.registry import METHODS
from bases.settings_faults import settings_faults

ENV_PREFIX = "HOTSWAP_TRAIN_"
ALL_LINEAR = "all-linear"
DEFAULT_EPOCHS = 3.0

# What a resumed run may change: none of it alters the numbers that training computes.
FREE_ON_RESUME = frozenset(
    {"resume", "push", "home", "log_every_steps", "save_every_steps", "keep_checkpoints", "probe_prompts"}
    | {"max_export_error", "device", "base", "max_minutes"}
)


class TrainSettings(BaseSettings):
    """Settings of `hotswap train`. Each description states the unit."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    # What is trained
    base: str = Field(
        "default",
        description="Base model: `default` (embedded SmolLM2-135M-Instruct), a folder, or a hub id. "
        "HOTSWAP_BASE is heard too.",
    )
    home: Path = Field(
        Path("~/.cache/hotswap"),
        validate_default=True,
        description="Folder for bases, runs and adapters. HOTSWAP_HOME is heard too.",
    )
    method: str = Field("lora", description=f"How to adapt: {', '.join(METHODS)} (docs/training.md).")
    rank: int = Field(16, ge=1, le=512, description="Rank of the adapter (columns of A and B).")
    alpha: float = Field(
        32.0, gt=0, description="Scale: LoRA's update is alpha / rank times B A, rsLoRA's alpha / sqrt(rank)."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapter's inputs dropped in training.")
    targets: Annotated[tuple[str, ...], NoDecode] = Field(
        (ALL_LINEAR,),
        description="Layers to adapt, by the last part of their names, comma-separated; `all-linear` is every "
        "linear layer but the output head.",
    )
    original_base: str | None = Field(
        None, description="`loftq`: the base before it was quantised, a folder or a hub id."
    )
    virtual_tokens: int = Field(
        20, ge=1, description="Virtual tokens of prefix and prompt tuning, in tokens."
    )
    loraplus_ratio: float = Field(8.0, ge=1, description="LoRA+: learning rate of B over that of A.")

    # How long
    epochs: float | None = Field(
        None,
        gt=0,
        description=f"Passes over the training data. Default: {DEFAULT_EPOCHS:g}, less at a limit.",
    )
    max_steps: int | None = Field(None, ge=1, description="Optimiser steps at most.")
    max_minutes: float | None = Field(
        None,
        gt=0,
        description="Time for the whole command in minutes, last evaluation and export included; the learning "
        "rate's schedule is laid over it.",
    )
    batch_size: int = Field(16, ge=1, description="Examples per optimiser step, over all processes.")
    accumulation_steps: int = Field(
        1,
        ge=1,
        description="Parts in which a step's examples are computed, one after the other, to save memory.",
    )
    max_length_tokens: int | None = Field(
        None, ge=8, description="Longest example in tokens. Default: 1024, or the base's context if shorter."
    )
    packing: bool = Field(
        True, description="Put the examples of a step behind each other without padding and without contact."
    )

    mix: Literal["loss", "sampling"] = Field(
        "loss",
        description="What a data set's weight (`task=FILE:weight`) does: `loss` weighs its tokens in the loss, "
        "`sampling` makes its examples come up so many times as often.",
    )

    # Learning rate
    learning_rate: float | None = Field(
        None, gt=0, description="Highest learning rate. Default: by method (docs/training.md)."
    )
    schedule: Literal["cosine", "linear", "constant", "plateau"] = Field(
        "cosine", description="Course of the learning rate after warm-up: cosine, linear, constant, plateau."
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the run in which the rate rises from 0.")
    plateau_factor: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="`plateau`: the rate is multiplied by this when evaluations do not improve.",
    )
    plateau_patience: int = Field(
        1, ge=0, description="`plateau`: evaluations without improvement before the rate falls."
    )

    # Optimiser
    optimizer: Literal["adamw", "adamw-8bit"] = Field(
        "adamw", description="adamw, or adamw-8bit (bitsandbytes, NVIDIA GPU)."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay per step and learning rate.")
    clip_norm: float = Field(1.0, ge=0, description="Gradient norm that is not exceeded; 0 does not clip.")
    gradient_checkpointing: bool | None = Field(
        None,
        description="Compute activations twice to save memory. Default: only where they would hardly fit.",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="Number format of the products: auto, bf16, fp16 or fp32. Trained weights are fp32.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train: auto, cpu or cuda.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Keep a moving average of the weights with this decay and save that."
    )
    seed: int = Field(0, ge=0, description="Seed of initial values, order and dropout.")

    # Evaluation and checkpoints
    eval_every_steps: int | None = Field(
        None, ge=1, description="Steps between evaluations. Default: four evaluations in the run."
    )
    eval_examples: int | None = Field(
        None, ge=1, description="Validation examples used while training, in examples. Default: all."
    )
    patience: int = Field(
        3,
        ge=0,
        description="Evaluations without enough improvement before training stops; 0 never stops early.",
    )
    min_relative_gain: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share by which validation perplexity has to fall to count as improvement.",
    )
    save_every_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints. Default: at evaluations."
    )
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints kept.")
    log_every_steps: int = Field(1, ge=1, description="Steps between points in TensorBoard.")
    resume: str | None = Field(
        None, description="Go on with a run: `latest`, or the folder of a run or of one of its checkpoints."
    )

    # Result
    probe_prompts: int = Field(
        8, ge=1, le=64, description="Prompts recorded for the gateway's check at loading."
    )
    max_export_error: float = Field(
        0.05, ge=0, description="Largest relative error of a conversion to LoRA that is still exported."
    )
    push: str | None = Field(
        None,
        description="Address of a gateway to load the finished adapter into, e.g. http://127.0.0.1:8000.",
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.split(",")
        return tuple(part.strip() for text in value for part in text.split(",") if part.strip())

    @field_validator("home")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"{value!r} is none of {', '.join(METHODS)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        problems = []
        if not self.targets:
            problems.append("--targets names no layer; leave it out for all linear layers")
        if ALL_LINEAR in self.targets and len(self.targets) > 1:
            problems.append(
                f"--targets {','.join(self.targets)}: `all-linear` already holds every other name"
            )
        if "lm_head" in self.targets:
            problems.append(
                "--targets lm_head: the output head is not adapted, the gateway could not serve it"
            )
        if self.batch_size < self.accumulation_steps:
            problems.append(
                f"--accumulation-steps {self.accumulation_steps} is above --batch-size {self.batch_size}: "
                "every part of a step needs an example"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, from the method where none is given."""
        return METHODS[self.method].learning_rate if self.learning_rate is None else self.learning_rate


def load_train_settings(**given: Any) -> TrainSettings:
    """Merge flags (`given`, None = not given), environment and defaults.

    Raises TrainingSettingsError with one line per setting at fault.
    """
    values = {name: value for name, value in given.items() if value is not None}
    # The gateway's own variables hold here too: what is served is what is trained on.
    for name in ("home", "base"):
        shared = os.environ.get(f"HOTSWAP_{name.upper()}")
        if shared and name not in values and f"{ENV_PREFIX}{name.upper()}" not in os.environ:
            values[name] = shared
    try:
        return TrainSettings(**values)
    except ValidationError as error:
        faults = settings_faults(error, as_flags=True)
        raise TrainingSettingsError(f"these settings cannot be used:\n{faults}") from None
