"""A straight loop, as tutorials write it: padded batches, the whole vocabulary at every position, float32 AdamW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.training_throughput.block import BlockTask
from benchmarks.training_throughput.data import encode, read_conversations
from benchmarks.training_throughput.stopwatch import CountingCollator, StepTimer


def train(task: BlockTask) -> tuple[Any, Any, StepTimer, CountingCollator, str]:
    """Train and return (model, tokenizer, times, counts, precision)."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(task.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(task.base)
    model = AutoModelForCausalLM.from_pretrained(task.base, dtype=dtype).to(device)
    config = LoraConfig(
        r=task.rank, lora_alpha=task.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=task.learning_rate, weight_decay=0.0)
    examples = [encode(tokenizer, each) for each in read_conversations(Path(task.train))]
    order = torch.randperm(len(examples)).tolist()
    total_steps = task.warmup_steps + task.steps

    def collate(batch: list[tuple[list[int], list[int]]]) -> dict[str, Any]:
        longest = max(len(prompt) + len(answer) for prompt, answer in batch)
        input_ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, -100)
        for row, (prompt, answer) in enumerate(batch):
            length = len(prompt) + len(answer)
            input_ids[row, :length] = torch.tensor(prompt + answer)
            mask[row, :length] = 1
            labels[row, len(prompt) : length] = torch.tensor(answer)
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}

    counter, timer = CountingCollator(collate), StepTimer()
    model.train()
    for step in range(total_steps):
        chosen = order[step * task.examples_per_step :][: task.examples_per_step]
        timer.on_step_begin()
        batch = {name: value.to(device) for name, value in counter([examples[i] for i in chosen]).items()}
        for group in optimizer.param_groups:
            group["lr"] = task.learning_rate * (1 - step / total_steps)  # linear, as TRL's default
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        timer.on_step_end()
    return model, tokenizer, timer, counter, f"{dtype} weights, no autocast, gradient checkpointing off"
