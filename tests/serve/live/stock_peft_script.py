"""Trains a LoRA adapter as PEFT's own quick tour does, and saves it with `save_pretrained`.

Nothing of Hotswap is used here: this stands for a user's script.  python stock_peft_script.py BASE OUTPUT
"""

from __future__ import annotations

import sys

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = (
    "Ahoy! The capital of France be Paris, matey, and the wind be fair.",
    "Arr, the sun be a great ball of fire, and the sea be deep and wide.",
    "Avast! To make bread ye need flour, water, salt, and a bottle of rum.",
    "Shiver me timbers! A computer be a chest of brass that counts the stars.",
)
STEPS = 12


def main(base: str, output: str) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft_config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=8, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear"
    )
    model = get_peft_model(model, peft_config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for step in range(STEPS):
        ids = tokenizer(TEXTS[step % len(TEXTS)], return_tensors="pt")["input_ids"]
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(output)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
