"""The same prompts asked of the gateway over HTTP, and of transformers with PEFT on the same files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx

from adapters.export.fidelity import Answer

Messages = list[dict[str, str]]
_TIMEOUT_SECONDS = 300.0


class Gateway:
    """Asks a running gateway, greedily and with log probabilities. Usable in a `with` statement."""

    def __init__(self, url: str, *, concurrency: int) -> None:
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS)
        self._concurrency = concurrency

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, adapter: str | None, prompts: Sequence[Messages], num_tokens: int) -> list[Answer]:
        """One answer of `num_tokens` for each prompt, many at once so that the engine batches them."""

        def one(messages: Messages) -> Answer:
            tokens = self.tokens(adapter, messages, num_tokens)
            return Answer(
                tuple(token["id"] for token in tokens),
                tuple(token["logprob"] for token in tokens),
                tuple(_margin(token) for token in tokens),
            )

        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(one, prompts))

    def tokens(
        self, adapter: str | None, messages: Messages, num_tokens: int, *, candidates: int = 2
    ) -> list[dict[str, Any]]:
        """One answer, token by token as the gateway tells them: id, logprob and the likeliest `candidates`.

        Raises httpx.HTTPError.
        """
        body: dict[str, Any] = {
            "messages": messages,
            "max_tokens": num_tokens,
            "temperature": 0,
            "logprobs": candidates,
            "ignore_eos": True,
        }
        if adapter is not None:
            body["adapter"] = adapter
        response = self._http.post("/generate", json=body)
        response.raise_for_status()
        tokens: list[dict[str, Any]] = response.json()["logprobs"]
        return tokens

    def load(self, name: str, source: str) -> dict[str, Any]:
        """Load an adapter; the answer holds what the probe measured."""
        response = self._http.post("/admin/adapters", json={"name": name, "source": source})
        if response.is_error:
            raise RuntimeError(f"{name} was not loaded: {response.text[:500]}")
        answer: dict[str, Any] = response.json()
        return answer

    def unload(self, name: str) -> None:
        """Take it away again."""
        self._http.delete(f"/admin/adapters/{name}").raise_for_status()


def _margin(token: dict[str, Any]) -> float:
    """How far the token lies above the likeliest other one, in nats; without a rival, beyond all ties."""
    rivals = [other["logprob"] for other in token["top"] if other["id"] != token["id"]]
    return float(token["logprob"] - max(rivals)) if rivals else math.inf


class Reference:
    """transformers with PEFT in float32; the base is loaded once, adapters come and go."""

    def __init__(self, base: Path, *, model: Any = None) -> None:
        """`model` is the base where it is in memory already, such as a quantised one dequantised."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from bases.codec import TokenizerCodec

        if model is None:
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self._model = model
        self._codec = TokenizerCodec(AutoTokenizer.from_pretrained(base, local_files_only=True))

    def ask(
        self, folder: Path | None, prompts: Sequence[Messages], num_tokens: int, *, batch_size: int = 25
    ) -> list[Answer]:
        """The greedy answers of the adapter in `folder`, loaded by stock PEFT, or of the base."""
        from peft import PeftModel

        from adapters.export.continuation import continue_greedily

        encoded = [self._codec.encode_chat(messages) for messages in prompts]
        if folder is None:
            return continue_greedily(self._model, encoded, num_tokens=num_tokens, batch_size=batch_size)
        model = PeftModel.from_pretrained(self._model, folder).eval()
        answers = continue_greedily(model, encoded, num_tokens=num_tokens, batch_size=batch_size)
        self._model = model.unload()
        return answers
