"""A canary and a shadow on the real engine: each version gives its own greedy answer, and answers say whose."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.patience import patient
from tests.serve.live.live_server import LiveServer
from tests.serve.live.thinking_base import make_thinking_home

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

NUM_SESSIONS = 16
SHADOW_SECONDS = patient(30.0)
ASKED = {"messages": [{"role": "user", "content": "What is it?"}], "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server on a tiny base with two versions of `trial`; the first is the stable one."""
    home = tmp_path_factory.mktemp("canary-home")
    base = make_thinking_home(home, [f"version-{number}" for number in range(2)])
    live = LiveServer(
        home,
        f"--base={base}",
        "--dtype=float32",
        "--kv-cache-gib=0.1",
        "--max-num-seqs=8",
        "--max-loras=2",
        "--max-lora-rank=8",
    )
    with live:
        with live.client() as client:
            for seed in range(2):
                body = {"name": "trial", "source": f"version-{seed}", "promote": seed == 0}
                loaded = client.post("/admin/adapters", json=body)
                assert loaded.status_code == 201, loaded.text
        yield live


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    """A client of the server."""
    with server.client() as client:
        yield client


@pytest.fixture
def versions(http: httpx.Client) -> tuple[str, str]:
    """(stable, other) by name."""
    (adapter,) = http.get("/admin/adapters").json()["adapters"]
    (other,) = [v["version"] for v in adapter["versions"] if v["version"] != adapter["live"]]
    return adapter["live"], other


def share(http: httpx.Client, **plan: Any) -> None:
    answer = http.put("/admin/adapters/trial/traffic", json=plan)
    assert answer.status_code == 200, answer.text


def digest(version: str) -> str:
    return version.partition("@")[2]


def metric(http: httpx.Client, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_canary_and_stable_version_each_give_their_own_answer(
    http: httpx.Client, versions: tuple[str, str]
) -> None:
    own = {
        version: http.post("/generate", json={**ASKED, "adapter": version}).json()["text"]
        for version in versions
    }
    assert own[versions[0]] != own[versions[1]]
    share(http, shares={digest(versions[1]): 0.5}, sticky="session")
    seen: dict[str, set[str]] = {}
    for number in range(2 * NUM_SESSIONS):
        session = f"session-{number % NUM_SESSIONS}"
        answer = http.post(
            "/generate", json={**ASKED, "adapter": "trial"}, headers={"X-Session-Id": session}
        ).json()
        assert answer["text"] == own[answer["adapter"]]
        seen.setdefault(session, set()).add(answer["adapter"])
    assert all(len(found) == 1 for found in seen.values())
    assert set().union(*seen.values()) == set(versions)


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_shadow_is_asked_beside_the_stable_version_and_differs(
    http: httpx.Client, versions: tuple[str, str], path: str, stream: bool
) -> None:
    stable, other = versions
    share(http, shadow={digest(other): 1.0})
    labels = {"adapter": "trial", "version": digest(other)}
    before = metric(http, "hotswap_shadow_compared_total", **labels)
    tokens = metric(http, "hotswap_completion_tokens_total", **labels)
    named = {"adapter": "trial"} if path == "/generate" else {"model": "trial"}
    answer = http.post(path, json={**ASKED, "stream": stream, **named})
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Hotswap-Adapter"] == stable
    deadline = time.monotonic() + SHADOW_SECONDS
    while metric(http, "hotswap_shadow_compared_total", **labels) == before:
        assert time.monotonic() < deadline, "the shadow was not heard"
        time.sleep(0.05)
    assert metric(http, "hotswap_shadow_compared_total", result="equal", **labels) == 0
    assert metric(http, "hotswap_completion_tokens_total", **labels) == tokens
