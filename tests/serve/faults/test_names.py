"""Row 11: names of adapters that do not exist or are none. The base never answers in their place."""

from __future__ import annotations

import pytest

from tests.serve.faults.client import REPLY_SECONDS, refusal, strangers, undisturbed

UNKNOWN = ["nope", "risk@deadbeef", "risk@" + "0" * 64, "RISK", "risk.", "org/risk", "base", "none"]
MALFORMED = {
    "climbs": "../risk",
    "climbs, encoded": "%2e%2e%2frisk",
    "absolute": "/etc/passwd",
    "NUL": "risk\x00",
    "newline": "risk\n",
    "Cyrillic look-alike": "ris\u043a",
    "full width": "\uff52isk",
    "zero-width space": "ri\u200bsk",
    "blank": " ",
    "empty": "",
    "ten kilobytes": "r" * 10_240,
    "backslash": "..\\risk",
    "number": 7,
}


@pytest.fixture
async def server(running_server):
    server = await running_server()
    source = server.make_adapter("risk")
    loaded = await server.client.post("/admin/adapters", json={"name": "risk", "source": source})
    assert loaded.status_code == 201
    server.engine.requests.clear()  # the probe's
    return server


def bodies(name):
    yield "/generate", {"prompt": "a", "adapter": name}
    yield "/generate", {"prompt": "a", "adapter": name, "stream": True}
    yield "/v1/completions", {"model": name, "prompt": "a"}
    yield (
        "/v1/chat/completions",
        {"model": name, "messages": [{"role": "user", "content": "a"}], "stream": True},
    )


async def test_b5_11_an_unknown_name_is_404_and_never_the_base(server):
    async with undisturbed(server):
        for name in UNKNOWN:
            for route, body in bodies(name):
                answer = await server.client.post(route, json=body)
                error = refusal(answer, f"{route} {name}")
                assert (answer.status_code, error["code"]) == (404, "model_not_found"), f"{route} {name}"
                assert error["param"] in ("adapter", "model")
                assert name[:60] in error["message"]
            for answer in [await server.client.get(f"/v1/models/{name}")]:
                assert answer.status_code == 404
                refusal(answer, name)
    assert strangers(server) == []


async def test_b5_11_a_malformed_name_is_422_and_never_the_base(server):
    async with undisturbed(server):
        for case, name in MALFORMED.items():
            for route, body in bodies(name):
                answer = await server.client.post(route, json=body)
                error = refusal(answer, f"{route} {case}")
                assert answer.status_code == 422, f"{route} {case}"
                assert error["param"] in ("adapter", "model")
                assert "rrrr" not in error["message"]
                assert answer.elapsed.total_seconds() < REPLY_SECONDS
    assert strangers(server) == []


async def test_b5_11_a_name_that_was_unloaded_is_404_from_then_on(server):
    gone = await server.client.delete("/admin/adapters/risk")
    assert gone.status_code == 200
    [version] = gone.json()["unloaded"]
    for name in ("risk", version):
        answer = await server.client.post("/generate", json={"prompt": "a", "adapter": name})
        assert answer.status_code == 404
    assert server.engine.requests == []


async def test_b5_11_the_admin_api_takes_no_path_for_a_name(server):
    paths = [
        "..%2Frisk",
        "%2e%2e",
        "%2e%2e%2f",
        "ris%D0%BA",
        "risk%00",
        "risk%0a",
        "RISK",
        "r" * 10_240,
        "a b",
    ]
    async with undisturbed(server):
        for path in paths:
            for method in ("GET", "DELETE"):
                answer = await server.client.request(method, f"/admin/adapters/{path}")
                error = refusal(answer, f"{method} {path}")
                assert (answer.status_code, error["code"]) in {
                    (422, "validation_error"),
                    (404, "route_not_found"),
                }, f"{method} {path}: {error}"
        for name in ("../x", "Risk", "scripted", "admin", "a@b", "a\n", "", "a" * 65, "..", "a..b"):
            answer = await server.client.post("/admin/adapters", json={"name": name, "source": "risk"})
            assert answer.status_code == 422, name
            refusal(answer, name)
        for source in ("../risk", "/etc", "risk/../../..", "~root", "risk\x00", "a\\b", "", ".", "x" * 1025):
            answer = await server.client.post("/admin/adapters", json={"name": "other", "source": source})
            error = refusal(answer, source)
            assert answer.status_code == 422, source
            assert str(server.server.settings.home) not in error["message"]
    assert set(server.gateway.adapters.board.aliases()) == {"risk"}
    assert len(server.engine.adapters) == 1
