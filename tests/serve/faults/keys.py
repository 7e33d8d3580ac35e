"""The admin key of a server under test, keys that open nothing, and routes that ask for one."""

from __future__ import annotations

import secrets

KEY = secrets.token_hex(32)

BAD_KEYS = {
    "none": [],
    "another": [f"Authorization: Bearer {secrets.token_hex(32)}"],
    "its beginning": [f"Authorization: Bearer {KEY[:-1]}"],
    "longer": [f"Authorization: Bearer {KEY}0"],
    "empty": ["Authorization: Bearer "],
    "no scheme": [f"Authorization: {KEY}"],
    "another scheme": [f"Authorization: Basic {KEY}"],
    "not ASCII": ["Authorization: Bearer sch\u00fcssel"],
    "not UTF-8": ["Authorization: Bearer \xff\xfe"],
    "two headers, the right one first": [f"Authorization: Bearer {KEY}", "Authorization: Bearer x"],
    "two headers, the right one last": ["Authorization: Bearer x", f"Authorization: Bearer {KEY}"],
    "in another header": [f"X-API-Key: {KEY}"],
    "60 kB": ["Authorization: Bearer " + "k" * 60_000],
}

ROUTES = [
    ("GET", "/admin/adapters", None),
    ("GET", "/admin/adapters/risk", None),
    ("POST", "/admin/adapters", {"name": "risk", "source": "risk"}),
    ("POST", "/admin/adapters", b"{not JSON"),
    ("POST", "/admin/adapters", {"unknown": "field"}),
    ("DELETE", "/admin/adapters/risk", None),
    ("DELETE", "/admin/adapters/NOT%20A%20NAME", None),
    ("GET", f"/admin/adapters?key={KEY}", None),
]


async def make_key(server, **fields) -> str:
    """Make a key through the API and return it."""
    answer = await server.client.post(
        "/admin/keys", json={"label": "test", **fields}, headers={"authorization": f"Bearer {KEY}"}
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json()["key"])
