"""Two adapters that say different words and the base between them, while one is replaced again and again.

On the default base, with its numbers; tests/contamination/ has every verb, dialect and fault on a tiny one.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.serve.live.conftest import WORDS

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("no_adapters_after"),
]

NUM_REQUESTS = 240
CONCURRENCY = 16
MAX_TOKENS = 5
CALM_WORD, *CHANGING_WORDS = WORDS.words
NUM_SWAPS = len(CHANGING_WORDS) - 1
LOGPROB_NATS = 2e-3
BASE_TOP = 5
INPUTS: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "user", "content": WORDS.questions[0]}]},
    {"prompt": WORDS.prompts[0]},
)


@dataclass(frozen=True)
class Answered:
    """One request and when it ran, seconds of time.perf_counter."""

    who: str  # "base", "calm" or "changing"
    form: int  # index into INPUTS
    started: float
    ended: float
    status: int
    answer: dict[str, Any]


@dataclass(frozen=True)
class Swap:
    """One load of the changing adapter."""

    version: str
    word: str
    asked: float
    done: float


@dataclass
class Traffic:
    """What all requests and swaps gave."""

    answers: list[Answered]
    swaps: list[Swap]
    calm_version: str
    seconds: float


async def generate(client: httpx.AsyncClient, who: str, form: int) -> Answered:
    body = {**INPUTS[form], "max_tokens": MAX_TOKENS}
    if who == "base":
        body |= {"logprobs": BASE_TOP, "max_tokens": 2}
    else:
        body["adapter"] = who
    started = time.perf_counter()
    response = await client.post("/generate", json=body)
    return Answered(who, form, started, time.perf_counter(), response.status_code, response.json())


class Load:
    """A closed loop of CONCURRENCY clients; every time a share of NUM_REQUESTS is answered, a swap begins.

    It goes on beyond NUM_REQUESTS until the last swap, too, is done and has had traffic after it.
    """

    def __init__(self, client: httpx.AsyncClient, sources: dict[str, str]) -> None:
        self.answers: list[Answered] = []
        self.swaps: list[Swap] = []
        self._client = client
        self._sources = sources
        self._work = itertools.cycle(itertools.product(("base", "calm", "changing"), range(len(INPUTS))))
        self._enough: float = float("inf")
        self._progress = asyncio.Condition()

    async def run(self) -> Traffic:
        calm = await self._load("calm", CALM_WORD)
        self.swaps.append(await self._load("changing", CHANGING_WORDS[0]))
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._swapper())
            for _ in range(CONCURRENCY):
                group.create_task(self._one_client())
        return Traffic(self.answers, self.swaps, calm.version, time.perf_counter() - started)

    async def _one_client(self) -> None:
        while len(self.answers) < self._enough:
            who, form = next(self._work)
            self.answers.append(await generate(self._client, who, form))
            async with self._progress:
                self._progress.notify_all()

    async def _swapper(self) -> None:
        for number, word in enumerate(CHANGING_WORDS[1:], start=1):
            due = number * NUM_REQUESTS // (NUM_SWAPS + 1)
            async with self._progress:
                await self._progress.wait_for(functools.partial(self._is_due, due))
            self.swaps.append(await self._load("changing", word))
        self._enough = max(NUM_REQUESTS, len(self.answers) + 2 * CONCURRENCY)

    def _is_due(self, num_answers: int) -> bool:
        heard = any(answered.answer.get("adapter") == self.swaps[-1].version for answered in self.answers)
        return heard and len(self.answers) >= num_answers

    async def _load(self, name: str, word: str) -> Swap:
        asked = time.perf_counter()
        body = {"name": name, "source": self._sources[word]}
        response = await self._client.post("/admin/adapters", json=body)
        assert response.status_code == 201, response.text
        return Swap(response.json()["adapter"]["live"], word, asked, time.perf_counter())


def base_logprobs(answer: dict[str, Any]) -> list[dict[int, float]]:
    return [{top["id"]: top["logprob"] for top in token["top"]} for token in answer["logprobs"]]


async def test_every_request_hears_its_own_adapter_while_one_is_replaced(server, put, word_adapters):
    sources = {word: put(folder, f"says-{word}") for word, folder in word_adapters.items()}
    async with server.async_client() as client:
        alone = [base_logprobs((await generate(client, "base", form)).answer) for form in range(len(INPUTS))]
        traffic = await Load(client, sources).run()
        await _wait_for_old_versions_to_go(client)
        listing = await _listing_of(client, resident=2)
    answers, swaps = traffic.answers, traffic.swaps
    print(f"{len(answers)} requests in {traffic.seconds:.1f} s")

    assert len(answers) >= NUM_REQUESTS
    assert [a for a in answers if a.status != 200] == []
    assert len(swaps) == NUM_SWAPS + 1
    assert len({swap.version for swap in swaps}) == NUM_SWAPS + 1
    assert max(a.started for a in answers) > swaps[-1].done

    for answered in answers:
        if answered.who == "calm":
            assert answered.answer["adapter"] == traffic.calm_version
            assert answered.answer["text"].strip() == CALM_WORD, answered
    _check_changing([a for a in answers if a.who == "changing"], swaps)
    worst = _check_base([a for a in answers if a.who == "base"], alone)
    print(f"largest difference of a base logprob from the base alone: {worst:.1e} nats")

    by_name = {adapter["name"]: adapter for adapter in listing["adapters"]}
    assert by_name.keys() == {"calm", "changing"}
    assert by_name["changing"]["live"] == swaps[-1].version
    states = {version["state"] for version in by_name["changing"]["versions"] if not version["live"]}
    assert states == {"registered"}  # out of the engine, and kept to go back to


def _check_changing(answers: list[Answered], swaps: list[Swap]) -> None:
    """Each says the word of its version, and that version was live at some time while it ran."""
    lives = {
        swap.version: (swap.word, swap.asked, following.done if following else float("inf"))
        for swap, following in itertools.zip_longest(swaps, swaps[1:])
    }
    for answered in answers:
        word, live_from, live_to = lives[answered.answer["adapter"]]
        assert answered.answer["text"].strip() == word, answered
        assert answered.ended >= live_from, answered
        assert answered.started <= live_to, answered
    heard = {answered.answer["adapter"] for answered in answers}
    assert heard == lives.keys()  # or some of the swaps were never seen


def _check_base(answers: list[Answered], alone: list[list[dict[int, float]]]) -> float:
    """The largest difference over all tokens that both name."""
    worst = 0.0
    for answered in answers:
        assert answered.answer["adapter"] is None
        for found, expected in zip(base_logprobs(answered.answer), alone[answered.form], strict=True):
            shared = found.keys() & expected.keys()
            assert len(shared) >= BASE_TOP - 1, answered  # the last two may change places
            worst = max(worst, *(abs(found[token] - expected[token]) for token in shared))
    assert worst < LOGPROB_NATS
    return worst


async def _listing_of(client: httpx.AsyncClient, *, resident: int) -> dict[str, Any]:
    """All adapters, once the engine says that it holds so many: the list waits for no engine that computes."""
    async with asyncio.timeout(30):
        while True:
            listing: dict[str, Any] = (await client.get("/admin/adapters")).json()
            if listing["resident"] == resident:
                return listing


async def _wait_for_old_versions_to_go(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while True:
            adapter = (await client.get("/admin/adapters/changing")).json()
            # The versions before are kept to go back to, out of the engine.
            loaded = [version for version in adapter["versions"] if version["state"] != "registered"]
            if [version["version"] for version in loaded] == [adapter["live"]]:
                return
