"""PUT /admin/adapters/{name}: what arrives is loaded, whatever else arrives leaves nothing behind."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.registry.registry import Registry
from serve.lifecycle.state import AdapterState
from tests.serve.asgi_call import AsgiCall

TAR = {"Content-Type": "application/x-tar"}
NAMES = (CONFIG_NAME, WEIGHTS_NAME)


def tar_of(folder: Path, *names: str, format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar of files of a folder, as tar programs make it."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w", format=format) as tar:
        for name in names or NAMES:
            tar.add(folder / name, name)
    return into.getvalue()


def staged(made: Any) -> list[str]:
    """What an upload has left behind."""
    return [path.name for path in (made.settings.home / "store").iterdir() if path.name.startswith(".")]


async def test_an_upload_is_live_and_shown_with_its_digest_as_source(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    folder = made.settings.adapter_folder / made.make_adapter("a")
    answer = await made.client.put("/admin/adapters/risk", content=tar_of(folder), headers=TAR)
    assert answer.status_code == 201, answer.text
    fields = answer.json()
    version = fields["adapter"]["versions"][0]
    assert version["source"] == f"upload:{version['digest'][:8]}"
    assert fields["probe"]["kind"] == "effect"
    assert staged(made) == []
    said = await made.client.post("/generate", json={"prompt": "a", "adapter": "risk", "max_tokens": 1})
    assert said.json()["text"] == f"{version['version']} "


async def test_the_same_content_again_is_200_and_new_content_replaces(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    first = tar_of(made.settings.adapter_folder / made.make_adapter("a"))
    second = tar_of(made.settings.adapter_folder / made.make_adapter("b", seed=1))
    answers = [
        await made.client.put("/admin/adapters/risk", content=body, headers=TAR)
        for body in (first, first, second)
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 201]
    assert answers[2].json()["replaced"] == answers[0].json()["adapter"]["live"]


async def test_an_upload_comes_back_after_a_restart(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    folder = made.settings.adapter_folder / made.make_adapter("a")
    answer = await made.client.put("/admin/adapters/risk", content=tar_of(folder), headers=TAR)
    await made.life.down()
    again = await scripted_gateway()
    behind = again.gateway.adapters.board.behind("risk")
    assert str(behind.version) == answer.json()["adapter"]["live"]
    assert behind.state is AdapterState.LIVE


async def test_a_body_larger_than_any_request_and_readme_are_taken(scripted_gateway: Any) -> None:
    made = await scripted_gateway(max_body_kib=1)
    folder = made.settings.adapter_folder / made.make_adapter("a")
    (folder / "README.md").write_text("# A model card")
    body = tar_of(folder, "README.md", *NAMES, format=tarfile.GNU_FORMAT)
    assert len(body) > 1024
    answer = await made.client.put("/admin/adapters/risk", content=body, headers=TAR)
    assert answer.status_code == 201, answer.text


async def test_a_failed_probe_answers_with_its_numbers_and_the_old_version_serves_on(
    scripted_gateway: Any,
) -> None:
    made = await scripted_gateway()
    old = await made.load("risk")
    made.engine.script.no_effect = True
    folder = made.settings.adapter_folder / made.make_adapter("b", seed=1)
    answer = await made.client.put("/admin/adapters/risk", content=tar_of(folder), headers=TAR)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "probe_failed")
    assert error["problems"][0]["code"] == "no_effect"
    assert error["probe"]["max_difference_nats"] == 0.0
    said = await made.client.post("/generate", json={"prompt": "a", "adapter": "risk", "max_tokens": 1})
    assert said.json()["text"] == f"{old} "
    assert staged(made) == []


async def test_a_gateway_that_shuts_down_takes_no_upload(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    folder = made.settings.adapter_folder / made.make_adapter("a")
    made.gateway.adapters.refuse()
    answer = await made.client.put("/admin/adapters/risk", content=tar_of(folder), headers=TAR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert staged(made) == []


async def test_the_event_names_who_sent_what(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    folder = made.settings.adapter_folder / made.make_adapter("a")
    answer = await made.client.put("/admin/adapters/risk", content=tar_of(folder), headers=TAR)
    digest = answer.json()["adapter"]["versions"][0]["digest"]
    await made.life.down()
    with Registry(made.settings.registry) as registry:
        event = registry.list_events()[0].event
    assert (event.actor, event.action, event.outcome, event.digest) == ("local", "load", "done", digest)
    assert event.detail["source"] == f"upload:{digest[:8]}"


async def test_the_key_is_asked_before_the_body_is_read(scripted_gateway: Any) -> None:
    made = await scripted_gateway(admin_key="a key that is long enough")
    call = AsgiCall(
        made.app, "PUT", "/admin/adapters/risk", headers=[(b"content-type", b"application/x-tar")]
    )
    start = await call.read()
    assert start["status"] == 401
    assert (b"connection", b"close") in start["headers"]
    assert call.unread == 1


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "multipart/form-data"])
async def test_another_content_type_is_refused(scripted_gateway: Any, content_type: str | None) -> None:
    made = await scripted_gateway()
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await made.client.put("/admin/adapters/risk", content=b"x" * 2048, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "content_type")


@pytest.mark.parametrize("name", ["Risk", "scripted", "a b", "x" * 65])
async def test_a_name_that_cannot_be_is_refused_before_the_body_is_read(
    scripted_gateway: Any, name: str
) -> None:
    made = await scripted_gateway()
    answer = await made.client.put(f"/admin/adapters/{name}", content=b"x", headers=TAR)
    assert answer.status_code == 422
    assert staged(made) == []
