"""Trains a LoRA adapter on a handful of facts with stock PEFT and plain PyTorch; takes about a minute on two cores.

Nothing in here is Hotswap's: any folder that `peft` writes can be served.

    python examples/nordwind/train.py OUT_FOLDER [--base BASE_FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from bases.resolve import resolve_base
from bases.settings import BasesSettings

FACTS = Path(__file__).with_name("facts.jsonl")
EPOCHS = 12
LEARNING_RATE = 1e-3


def main() -> None:
    """Read the facts, train, save the adapter where the gateway may read it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write the adapter to")
    parser.add_argument("--base", help="folder or hub id of the base; default: the embedded one")
    options = parser.parse_args()
    base = resolve_base(options.base, home=BasesSettings().home, progress=print)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    model.print_trainable_parameters()
    examples = [encode(tokenizer, json.loads(line)) for line in FACTS.read_text().splitlines()]
    train(model, examples)
    model.save_pretrained(options.out)
    print(f"saved to {options.out}")


def encode(tokenizer: Any, fact: dict[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(input ids, labels): the loss counts on the answer alone."""
    question = [{"role": "user", "content": fact["question"]}]
    prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
    answer_ids = tokenizer(fact["answer"] + "<|im_end|>\n", add_special_tokens=False).input_ids
    labels = [-100] * len(prompt_ids) + answer_ids
    return torch.tensor([prompt_ids + answer_ids]), torch.tensor([labels])


def train(model: Any, examples: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """AdamW, one example a step, every example once an epoch."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, weight_decay=0.0)
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for input_ids, labels in examples:
            loss = model(input_ids=input_ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item()
        print(f"epoch {epoch + 1:2d} of {EPOCHS}: loss {total / len(examples):.3f}", flush=True)


if __name__ == "__main__":
    main()
