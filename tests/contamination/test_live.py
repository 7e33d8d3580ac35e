"""The harness on vLLM with a tiny base: real weights, real batches, a real prefix cache, and a real SIGKILL.

What each version has to say is what stock PEFT says with the same weights: so each was trained, and so it was
checked on these very inputs (tests/adapters_that_say.py). For longer runs: `python -m tests.contamination --help`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.contamination.dialects import ALL
from tests.contamination.run import Plan, contaminate
from tests.contamination.servers import ServerUnderTest, live_server
from tests.patience import patient
from tests.serve.asgi_call import events_of

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

SECONDS, MIN_WORDS = 60.0, 150
SPLIT = "日本語 😀 é ∑"  # three and four tokens a character, for a vocabulary of bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> AsyncIterator[ServerUnderTest]:
    """One server for this file."""
    kept = Path(pytestconfig.cache.mkdir("hotswap-adapters"))
    async with live_server(tmp_path_factory.mktemp("contamination"), kept) as ready:
        yield ready


async def test_b5_25_a_character_split_over_tokens_is_sent_whole(server: ServerUnderTest) -> None:
    body = {"prompt": "Say:", "response_format": {"type": "choice", "choice": [SPLIT]}, "max_tokens": 60}
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        whole = await client.post("/generate", json=body)
        stream = await client.post("/generate", json={**body, "stream": True})
        chat = await client.post(
            "/v1/chat/completions",
            json={
                "model": server.cast.base_name,
                "messages": [{"role": "user", "content": "Say:"}],
                "response_format": {"type": "choice", "choice": [SPLIT]},
                "max_tokens": 60,
                "stream": True,
            },
        )
    assert whole.json()["text"] == SPLIT
    *deltas, (last, _) = events_of(stream.content)
    pieces = [fields["text"] for _, fields in deltas]
    assert last == "done"
    assert "".join(pieces) == SPLIT
    assert len(pieces) > 5
    assert "\ufffd" not in stream.text
    assert "\ufffd" not in chat.text


async def test_b5_15_no_request_hears_another_word_than_its_versions_whatever_moves_and_dies(
    server: ServerUnderTest,
) -> None:
    report = await contaminate(server, Plan(SECONDS, min_words=MIN_WORDS))
    print(report.text())
    assert report.ok, report.text()
    assert report.words_compared >= MIN_WORDS
    assert len(report.restart_seconds) >= 1
    assert set(report.requests_by_dialect) == {dialect.name for dialect in ALL}
    async with httpx.AsyncClient(base_url=server.url, timeout=patient(5)) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    hits = [line for line in lines if line.startswith("vllm:prefix_cache_hits_total")]
    assert sum(float(line.rpartition(" ")[2]) for line in hits) > 0  # or a stale prefix could not show
