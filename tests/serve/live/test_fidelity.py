"""A PEFT adapter is loaded under traffic and then answers as it does in transformers."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.serve.live import stock_peft_script
from tests.serve.live.sse import async_events

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("no_adapters_after"),
]

NUM_STREAMS = 8
STREAM_TOKENS = 64
NUM_TOKENS = 32
TIE_NATS = 1e-3
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was",
    "To make bread you need",
    "The sun is",
    "def fibonacci(n):",
    "My name is",
    "In the year 1900,",
    "A computer is",
    "The best way to learn a language",
    "Dear Sir or Madam,",
)
QUESTIONS = (
    "What is the capital of France?",
    "Tell me a story about a dog.",
    "How do I boil an egg?",
    "What is the sun?",
    "Write a haiku about rain.",
    "Who are you?",
    "What is seven times eight?",
    "Name three animals.",
    "Why is the sky blue?",
    "Say hello in Spanish.",
)
INPUTS: list[dict[str, Any]] = [
    *({"prompt": prompt} for prompt in PROMPTS),
    *({"messages": [{"role": "user", "content": question}]} for question in QUESTIONS),
]


@pytest.fixture(scope="module")
def pirate(default_base: Path, kept: Path) -> Path:
    """The folder that the stock script writes; kept for the next run."""
    script = Path(stock_peft_script.__file__)
    made_from = script.read_bytes() + (default_base / "config.json").read_bytes()
    folder = kept / f"pirate-{hashlib.sha256(made_from).hexdigest()[:16]}"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        subprocess.run([sys.executable, str(script), str(default_base), str(partial)], check=True)
        partial.rename(folder)
    return folder


async def test_it_loads_while_eight_streams_run_on_the_base(server, put, pirate):
    source = put(pirate, "pirate")
    started = asyncio.Semaphore(0)
    running = 0

    async def stream(client, prompt: str) -> dict[str, Any]:
        nonlocal running
        body = {"prompt": prompt, "max_tokens": STREAM_TOKENS, "ignore_eos": True, "stream": True}
        first = True
        async with client.stream("POST", "/generate", json=body) as response:
            assert response.status_code == 200
            async for name, payload in async_events(response.aiter_lines()):
                if first:
                    first, running = False, running + 1
                    started.release()
                assert name in ("delta", "done"), payload
        running -= 1
        return payload

    async with server.async_client() as client, asyncio.TaskGroup() as group:
        streams = [group.create_task(stream(client, prompt)) for prompt in PROMPTS[:NUM_STREAMS]]
        for _ in streams:
            await started.acquire()
        loaded = await client.post("/admin/adapters", json={"name": "pirate", "source": source})
        still_running = running
    assert loaded.status_code == 201, loaded.text
    assert still_running == NUM_STREAMS
    for finished in streams:
        assert finished.result()["usage"]["completion_tokens"] == STREAM_TOKENS
        assert finished.result()["adapter"] is None
    print("load:", loaded.json()["adapter"]["versions"][0]["phase_seconds"])


async def test_its_greedy_tokens_are_those_of_peft(server, put, pirate, default_base):
    source = put(pirate, "pirate")
    sampling = {"adapter": "pirate", "max_tokens": NUM_TOKENS, "ignore_eos": True, "logprobs": 0}
    async with server.async_client() as client:
        loaded = (await client.post("/admin/adapters", json={"name": "pirate", "source": source})).json()
        asked = [client.post("/generate", json={**body, **sampling}) for body in INPUTS]
        asked.append(client.post("/generate", json={**INPUTS[0], **sampling, "adapter": None}))
        *answers, base = [response.json() for response in await asyncio.gather(*asked)]
    assert {answer["adapter"] for answer in answers} == {loaded["adapter"]["live"]}
    *served, base_tokens = [[token["id"] for token in answer["logprobs"]] for answer in (*answers, base)]
    reference = Reference(default_base, pirate)
    prompts = [reference.encode(body) for body in INPUTS]
    expected = reference.generate(prompts)
    differing = [place for place in range(len(INPUTS)) if served[place] != expected[place]]
    for place in differing:
        gap = reference.gap(prompts[place], served[place], expected[place])
        print(f"input {place} differs by a tie of {gap:.2e} nats")
        assert gap < TIE_NATS, (INPUTS[place], served[place], expected[place])
    print(f"{len(INPUTS) - len(differing)} of {len(INPUTS)} answers equal token for token")
    assert len(differing) <= 1
    assert base_tokens != served[0]  # or all of this would hold for an adapter that does nothing


class Reference:
    """The same weights in transformers and PEFT."""

    def __init__(self, base: Path, adapter: Path) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model.generation_config.eos_token_id = None  # as ignore_eos: the end is a token like any other
        self._model = PeftModel.from_pretrained(model, adapter).eval()

    def without_adapter(self) -> AbstractContextManager[None]:
        """Inside it answers as the base."""
        switched_off: AbstractContextManager[None] = self._model.disable_adapter()
        return switched_off

    def encode(self, body: dict[str, Any]) -> Any:
        if "prompt" in body:
            return self._tokenizer(body["prompt"])["input_ids"]
        rendered = self._tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        return self._tokenizer(rendered, add_special_tokens=False)["input_ids"]

    def generate(self, prompts: list[list[int]]) -> Any:
        padded = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        with self._torch.inference_mode():
            found = self._model.generate(**padded, max_new_tokens=NUM_TOKENS, do_sample=False)
        return found[:, padded["input_ids"].shape[1] :].tolist()

    def gap(self, prompt: list[int], one: list[int], other: list[int]) -> float:
        """Nats between the two candidates at the first place where they differ."""
        place = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        ids = self._torch.tensor([[*prompt, *one[:place]]])
        with self._torch.inference_mode():
            logprobs = self._model(input_ids=ids).logits[0, -1].log_softmax(-1)
        return float(abs(logprobs[one[place]] - logprobs[other[place]]))
