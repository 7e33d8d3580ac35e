"""Decode steps of an engine in this process: a number of requests at once, nothing else."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MAX_STEPS = 400
_WARMUP_STEPS = 3
_LONGEST_ANSWER = 1024


class Decoder:
    """Fills an engine with requests and steps it while all of them decode."""

    def __init__(self, engine: Any, prompt_tokens: int, lora_request: Any = None) -> None:
        self._engine = engine
        self._prompt_tokens = prompt_tokens
        self._lora_request = lora_request
        self._numbers = itertools.count()
        self._random = random.Random(0)  # noqa: S311 - prompts, no secrets

    @contextmanager
    def decoding(self, concurrency: int) -> Iterator[None]:
        """So many requests, none sent before, all past their prompts; gone afterwards."""
        self._fill(concurrency)
        try:
            for _ in range(_WARMUP_STEPS):
                self._engine.step()
            yield
        finally:
            self._empty()

    def measure(self, seconds: float) -> tuple[list[float], list[float]]:
        """Wall and thread seconds of each decode step, for about `seconds`; at least one step."""
        walls: list[float] = []
        threads: list[float] = []
        end = time.perf_counter() + seconds
        while not walls or (time.perf_counter() < end and len(walls) < _MAX_STEPS):
            wall, thread = time.perf_counter(), time.thread_time()
            self._engine.step()
            walls.append(time.perf_counter() - wall)
            threads.append(time.thread_time() - thread)
        return walls, threads

    def _fill(self, concurrency: int) -> None:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        vocabulary = self._engine.model_config.get_vocab_size()
        for _ in range(concurrency):
            self._engine.add_request(
                f"profile-{next(self._numbers)}",
                {
                    "prompt_token_ids": [
                        self._random.randrange(vocabulary) for _ in range(self._prompt_tokens)
                    ]
                },
                SamplingParams(
                    temperature=0,
                    max_tokens=_LONGEST_ANSWER,
                    ignore_eos=True,
                    output_kind=RequestOutputKind.DELTA,
                ),
                lora_request=self._lora_request,
            )
        # One step more than the prompts need: the first tokens are out and everybody decodes.
        started: set[str] = set()
        while len(started) < concurrency:
            started.update(output.request_id for output in self._engine.step())

    def _empty(self) -> None:
        requests = list(self._engine.output_processor.request_states)
        self._engine.abort_request(requests, internal=True)
        while self._engine.has_unfinished_requests():
            self._engine.step()
