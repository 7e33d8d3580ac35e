"""TRL's SFTTrainer as its documentation starts it: the base by name, a LoRA config, everything else at its default.

The data has TRL's prompt-completion shape, so that its loss counts on the answers alone, as ours does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.training_throughput.block import BlockTask
from benchmarks.training_throughput.data import read_conversations
from benchmarks.training_throughput.stopwatch import CountingCollator, StepTimer


def train(task: BlockTask) -> tuple[Any, Any, StepTimer, CountingCollator, str]:
    """Train and return (model, tokenizer, times, counts, precision)."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"prompt": messages[:-1], "completion": messages[-1:]}
        for messages in read_conversations(Path(task.train))
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            max_steps=task.warmup_steps + task.steps,
            per_device_train_batch_size=task.examples_per_step,  # 8 is also TRL's default
            learning_rate=task.learning_rate,
            seed=task.seed,
            use_cpu=not torch.cuda.is_available(),  # without it TRL 1.16 refuses its own bf16 default
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        timer = StepTimer()
        trainer = SFTTrainer(
            model=task.base,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(
                r=task.rank, lora_alpha=task.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[timer],
        )
        counter = trainer.data_collator = CountingCollator(trainer.data_collator)
        trainer.train()
        precision = (
            f"{next(trainer.model.parameters()).dtype} weights, "
            f"{'bf16' if arguments.bf16 else 'no'} autocast, "
            f"gradient checkpointing {'on' if arguments.gradient_checkpointing else 'off'}"
        )
    return trainer.model, trainer.processing_class, timer, counter, precision
