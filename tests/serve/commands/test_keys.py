"""`hotswap keys`: in the registry itself, and through a running gateway."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hotswap import app
from serve.errors import InvalidRequestError

runner = CliRunner(env={"COLUMNS": "200", "HOTSWAP_URL": None})
ADMIN_KEY = "0123456789abcdef-the-key"


def run(*arguments: str) -> str:
    done = runner.invoke(app, ["keys", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_key_is_made_listed_and_revoked_without_a_server(clean_environment: None, tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    key = run(
        "create", "--label", "web shop", "--tenant", "acme", "--adapters", "risk*, base", "--requests-per-minute",
        "60", "--expires-in-days", "30", *home,
    ).strip()  # fmt: skip
    assert re.fullmatch(r"hsk_[0-9a-f]{16}_[0-9a-f]{64}", key)
    key_id = key.split("_")[1]
    listed = run("list", *home)
    for shown in (key_id, "web shop", "acme", "active", "risk*, base", "60 requests/min"):
        assert shown in listed
    assert key[-64:] not in listed
    assert "revoked" in run("revoke", key_id, *home)
    assert "revoked" in run("list", *home)


def test_what_a_key_cannot_be_is_said_by_its_flag(clean_environment: None, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="--adapters"):
        run("create", "--label", "x", "--adapters", "Not/Allowed", "--home", str(tmp_path))
    with pytest.raises(InvalidRequestError, match="--weight"):
        run("create", "--label", "x", "--weight", "0", "--home", str(tmp_path))
    for days in ("nan", "inf", "0", "-3", "99999"):
        with pytest.raises(InvalidRequestError, match="--expires-in-days"):
            run("create", "--label", "x", "--expires-in-days", days, "--home", str(tmp_path))


def test_a_narrow_list_still_shows_whole_ids(
    clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ("--home", str(tmp_path))
    key = run("create", "--label", "web shop", "--tokens-per-minute", "20000", *home).strip()
    monkeypatch.setattr(runner, "env", {**runner.env, "COLUMNS": "80"})
    assert key.split("_")[1] in run("list", *home)


async def test_through_a_gateway_it_is_the_admin_api(
    running_server: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await running_server(admin_key=ADMIN_KEY, auth="required")
    monkeypatch.setenv("HOTSWAP_ADMIN_KEY", ADMIN_KEY)
    url = ("--url", server.url)
    made = await asyncio.to_thread(
        run, "create", "--label", "scraper", "--metrics", "--adapters", "none", *url
    )
    headers = {"authorization": f"Bearer {made.strip()}"}
    assert (await server.client.get("/metrics", headers=headers)).status_code == 200
    assert (await server.client.post("/generate", json={"prompt": "a"}, headers=headers)).status_code == 404
    assert "metrics + none" in await asyncio.to_thread(run, "list", *url)
    await asyncio.to_thread(run, "revoke", made.split("_")[1], *url)
    assert (await server.client.get("/metrics", headers=headers)).status_code == 401


async def test_generate_sends_the_key_of_the_environment(
    running_server: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await running_server(admin_key=ADMIN_KEY, auth="required")
    made = (
        await server.client.post(
            "/admin/keys", json={"label": "x"}, headers={"authorization": f"Bearer {ADMIN_KEY}"}
        )
    ).json()["key"]
    monkeypatch.setenv("HOTSWAP_API_KEY", made)
    asked = ["generate", "hello", "--max-tokens", "2", "--url", server.url]
    done = await asyncio.to_thread(runner.invoke, app, asked)
    assert done.exit_code == 0, done.output
    assert "scripted" in done.output
