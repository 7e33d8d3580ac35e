"""The service that fine-tuning tutorials end with: a FastAPI handler around transformers' `model.generate`.

One process, the checkpoint's own number format, a plain `def` handler that FastAPI runs in its thread pool,
nothing tuned. `tokens` in the answer is for the measurement; the answer's length is forced so that all servers
do the same work.
"""

from __future__ import annotations

import argparse
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel


class Prompt(BaseModel):
    """What is asked."""

    prompt: str
    max_new_tokens: int = 64


def create_app(model_path: str) -> FastAPI:
    """Load the model and put a handler in front of it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path)
    app = FastAPI()

    @app.post("/generate")
    def generate(body: Prompt) -> dict[str, Any]:
        inputs = tokenizer(body.prompt, return_tensors="pt")
        outputs = model.generate(
            **inputs,
            max_new_tokens=body.max_new_tokens,
            min_new_tokens=body.max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        prompt_tokens = inputs["input_ids"].shape[1]
        answer = outputs[0][prompt_tokens:]
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(answer)}
        return {"text": tokenizer.decode(answer, skip_special_tokens=True), "usage": usage}

    return app


def main() -> None:
    """`python -m benchmarks.load.peers.tutorial_service --model FOLDER --port 8000`."""
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder or hub id")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(create_app(options.model), host="127.0.0.1", port=options.port)


if __name__ == "__main__":
    main()
