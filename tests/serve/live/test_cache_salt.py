"""Prefix cache and tenants, with the real engine: a tenant's keys share what is cached, two tenants do not."""

from __future__ import annotations

import re
import time
import uuid

import httpx
import pytest

from tests.patience import patient

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "smollm2-135m-instruct"
QUERIES = re.compile(r"^vllm:prefix_cache_queries_total\{[^}]*\} (\S+)$", re.MULTILINE)
HITS = re.compile(r"^vllm:prefix_cache_hits_total\{[^}]*\} (\S+)$", re.MULTILINE)


def make_key(http: httpx.Client, tenant: str) -> str:
    made = http.post("/admin/keys", json={"label": "test", "tenant": tenant})
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


def counted(http: httpx.Client) -> tuple[float, float]:
    """Tokens that were looked up in the prefix cache, and tokens that were found there."""
    text = http.get("/metrics").text
    queries, hits = (sum(map(float, pattern.findall(text))) for pattern in (QUERIES, HITS))
    return queries, hits


def cached_tokens(http: httpx.Client, path: str, body: dict, key: str | None) -> float:
    """Tokens of the prompt that the engine found in its cache."""
    queries, hits = counted(http)
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    answer = http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    deadline = time.monotonic() + patient(10)
    while counted(http)[0] == queries:
        assert time.monotonic() < deadline, "the engine counts no look-up"
        time.sleep(0.02)
    return counted(http)[1] - hits


@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
def test_only_a_tenants_own_requests_find_what_it_asked_before(http, path):
    prompt = f"{uuid.uuid4()} " + "The quick brown fox jumps over the lazy dog. " * 60
    body = {"prompt": prompt, "max_tokens": 1}
    if path != "/generate":
        body["model"] = MODEL
    one, same, other = (make_key(http, tenant) for tenant in ("acme", "acme", "other"))
    assert cached_tokens(http, path, body, one) == 0
    warm = cached_tokens(http, path, body, same)
    assert warm > 100
    assert cached_tokens(http, path, body, other) == 0
    assert cached_tokens(http, path, body, None) == 0
    assert cached_tokens(http, path, body, other) == warm
    assert cached_tokens(http, path, body, None) == warm
