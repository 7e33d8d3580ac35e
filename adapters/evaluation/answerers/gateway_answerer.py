"""Answers through a running gateway: what its clients get, measured over HTTP."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from adapters.data.example import Example
from adapters.errors import EvaluationError
from adapters.evaluation.answer import Answer, Likelihood, Unavailable
from adapters.evaluation.answerers.answerer import Keep, Progress, keep_nothing, quiet
from adapters.evaluation.answerers.gateway_http import GatewayHttp
from adapters.evaluation.answerers.label_scores import label_place, scores_from_top
from adapters.evaluation.answerers.likelihood import LearnedTokens, learned_tokens
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.question import Question, question_of

_SAMPLES = 4  # prompts that show whether the tokenizer is the served one, where no others were asked
_SAMPLE_CHARACTERS = 200
_TOP_TOKENS = 20  # the most that a gateway gives


class GatewayAnswerer:
    """Answers with an adapter of a gateway, or with its base where `adapter` is None.

    All answers come from one version: an alias that moves while it is asked is an error.
    """

    def __init__(
        self,
        gateway: GatewayHttp,
        *,
        adapter: str | None,
        max_new_tokens: int,
        base_folder: Path | None = None,
    ) -> None:
        """`base_folder` holds the tokenizer of the served base; without it there are no likelihoods."""
        self._gateway = gateway
        self._adapter = adapter
        self._max_new_tokens = max_new_tokens
        self._base_folder = base_folder
        self._base_name = ""
        self._context_tokens: int | None = None
        self._versions: set[str] = set()
        self._prompt_tokens: dict[Question, int] = {}

    @property
    def description(self) -> str:
        """The version that answered, or what was asked for."""
        return ", ".join(sorted(self._versions)) or self._adapter or self._base_name or "base"

    def answer(
        self,
        questions: Sequence[Question],
        *,
        rule: LabelRule | None,
        progress: Progress,
        keep: Keep = keep_nothing,
    ) -> list[Answer]:
        async def one(client: httpx.AsyncClient, asked: tuple[int, Question]) -> Answer:
            place, question = asked
            answer = await self._ask(client, question, rule)
            keep(place, answer)
            return answer

        numbered = list(enumerate(questions))
        return asyncio.run(self._all(numbered, one, lambda done: progress(done, len(questions))))

    def likelihoods(
        self, examples: Sequence[Example], *, progress: Progress
    ) -> list[Likelihood] | Unavailable:
        if self._base_folder is None:
            return Unavailable("the tokenizer of the served base is not at hand; name the base with --base")
        try:
            if not self._prompt_tokens:
                samples = [
                    question_of(each) or Question((), (each.text or "")[:_SAMPLE_CHARACTERS], "")
                    for each in examples[:_SAMPLES]
                ]
                self.answer(samples, rule=None, progress=quiet)
            mismatch = self._other_tokenizer()
            if mismatch is not None:
                return mismatch
            return self._echoed(examples, self._base_folder, progress)
        except EvaluationError as error:  # the answers that were given already are worth their report
            return Unavailable(str(error))

    def _echoed(
        self, examples: Sequence[Example], base_folder: Path, progress: Progress
    ) -> list[Likelihood] | Unavailable:
        asyncio.run(self._check_name())
        # One token has to be generated behind each.
        room = self._context_tokens - 1 if self._context_tokens is not None else None
        encoded = learned_tokens(examples, base_folder, max_length_tokens=room)
        missing: list[str] = []

        async def one(client: httpx.AsyncClient, each: LearnedTokens) -> float:
            return await self._nats(client, each, missing)

        values = asyncio.run(self._all(encoded, one, lambda done: progress(done, len(encoded))))
        if missing:
            return Unavailable(missing[0])
        nats, counts = [0.0] * len(examples), [0] * len(examples)
        for each, value in zip(encoded, values, strict=True):
            nats[each.example] += value
            counts[each.example] += sum(each.supervised[1:])
        return [Likelihood(value, count) for value, count in zip(nats, counts, strict=True)]

    async def _all(self, items: Sequence[Any], one: Any, done: Any) -> list[Any]:
        await self._check_name()
        return await self._gateway.ask_all(items, one, done)

    async def _check_name(self) -> None:
        """Raise EvaluationError early for a gateway that is not there or a name that it does not know."""
        async with self._gateway.client() as client:
            listed = await self._gateway.ask(client, "GET", "/v1/models")
        try:
            names = [str(card["id"]) for card in listed["data"]]
            bases = [str(card["id"]) for card in listed["data"] if card.get("parent") is None]
        except (KeyError, TypeError, AttributeError):
            names = bases = []
        if not bases:
            raise EvaluationError(f"what answers at {self._gateway.url} is no Hotswap gateway")
        self._base_name = bases[0]
        room = listed["data"][0].get("max_model_len")
        self._context_tokens = room if isinstance(room, int) else None
        if self._adapter is not None and (self._adapter not in names or self._adapter in bases):
            known = ", ".join(name for name in names if name not in bases) or "none"
            raise EvaluationError(
                f"the gateway at {self._gateway.url} serves no adapter {self._adapter!r}; it serves: {known}. "
                "Load it with `hotswap adapters load`"
            )

    async def _ask(self, client: httpx.AsyncClient, question: Question, rule: LabelRule | None) -> Answer:
        scored = rule is not None and bool(rule.labels)
        body: dict[str, Any] = {
            "max_tokens": self._max_new_tokens,
            "temperature": 0.0,
            # The base's generation config may ask for penalties; the plain model is measured.
            "repetition_penalty": 1.0,
            "logprobs": _TOP_TOKENS if scored else 0,
        }
        if question.messages:
            body |= {"messages": question.as_dicts(), "reasoning": False}
        else:
            body["prompt"] = question.prompt
        if self._adapter is not None:
            body["adapter"] = self._adapter
        started = time.perf_counter()
        given = await self._gateway.ask(client, "POST", "/generate", json=body)
        seconds = time.perf_counter() - started
        self._note_version(given.get("adapter"))
        try:
            self._prompt_tokens[question] = int(given["usage"]["prompt_tokens"])
            return _read(given, seconds, rule if scored else None)
        except (KeyError, TypeError, ValueError) as error:
            raise EvaluationError(
                f"the gateway's answer cannot be read ({type(error).__name__}: {error}); are gateway and "
                "evaluation of the same version?"
            ) from None

    def _note_version(self, version: object) -> None:
        if (version is None) != (self._adapter is None):
            raise EvaluationError(
                f"asked for {self._adapter or 'the base'}, the gateway answered as {version or 'the base'}"
            )
        if version is not None:
            self._versions.add(str(version))
        if len(self._versions) > 1:
            raise EvaluationError(
                f"{self._adapter!r} moved from one version to another while it was asked "
                f"({', '.join(sorted(self._versions))}); evaluate a pinned version"
            )

    def _other_tokenizer(self) -> Unavailable | None:
        """Whether the local base counts the prompts that were asked otherwise than the gateway did."""
        from transformers import AutoTokenizer

        from bases.codec import TokenizerCodec

        codec = TokenizerCodec(AutoTokenizer.from_pretrained(self._base_folder))
        for question, counted in self._prompt_tokens.items():
            ids = (
                codec.encode_chat(question.as_dicts())
                if question.messages
                else codec.encode(question.prompt or "", parse_special=False)
            )
            if len(ids) != counted:
                return Unavailable(
                    f"the gateway reads a prompt as {counted} tokens and the base named by --base as {len(ids)}; "
                    "name the served base"
                )
        return None

    async def _nats(self, client: httpx.AsyncClient, each: LearnedTokens, missing: list[str]) -> float:
        """Negative log-likelihood of the learned tokens, from the logprobs of an echoed prompt."""
        if missing:
            return 0.0
        body = {
            "model": self._adapter or self._base_name,
            "prompt": list(each.input_ids),
            "echo": True,
            "logprobs": 0,
            "max_tokens": 1,
            "temperature": 0.0,
        }
        given = await self._gateway.ask(client, "POST", "/v1/completions", json=body)
        try:
            logprobs = given["choices"][0]["logprobs"]["token_logprobs"]
            if len(logprobs) != len(each.input_ids) + 1:
                raise ValueError(f"{len(logprobs)} logprobs for {len(each.input_ids)} tokens")
            # The first token has nothing before it and so no logprob.
            learned = [
                float(value)
                for value, wanted in zip(logprobs[1:], each.supervised[1:], strict=False)
                if wanted
            ]
        except (KeyError, TypeError, ValueError, IndexError):
            missing.append("the gateway gives no logprobs of a prompt (`echo` with `logprobs`)")
            return 0.0
        return -math.fsum(learned)


def _read(given: Mapping[str, Any], seconds: float, rule: LabelRule | None) -> Answer:
    """The gateway's answer; with a rule also the labels' probabilities from the likeliest tokens."""
    text, tokens = str(given["text"]), given.get("logprobs") or []
    reason = given["finish_reason"]
    if reason not in ("stop", "length"):
        raise ValueError(f"finish reason {reason!r}")
    answer = Answer(
        text=text,
        num_tokens=int(given["usage"]["completion_tokens"]),
        finish_reason=reason,
        seconds=seconds,
        token_ids=tuple(int(token["id"]) for token in tokens) or None,
    )
    found = rule.find(text) if rule is not None else None
    if rule is None or found is None:
        return answer
    place = label_place(text, found.start, [str(token["text"]) for token in tokens])
    if place is None:
        return answer
    top = [(str(one["text"]), math.exp(float(one["logprob"]))) for one in tokens[place.token]["top"]]
    scores = scores_from_top(rule.labels, place.lead, top)
    if scores is None:
        return answer
    return replace(answer, label_scores=scores[0], unseen_mass=scores[1])
