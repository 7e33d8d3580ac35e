"""POST /admin/adapters with a URL: fetched, loaded, shown with its URL; and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from serve.errors import SettingsError
from serve.schemas.admin import LoadAnswer
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
URL = "s3://bucket/adapters/risk/v1"


class Bucket(MemoryFileSystem):  # type: ignore[misc]
    """A bucket in memory."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("s3://").strip("/")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda protocol: {"s3": Bucket}[protocol])
    yield Bucket(skip_instance_cache=True)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]


async def with_one(make: MakeGateway, bucket: Bucket) -> ScriptedGateway:
    """A gateway that may read the bucket, which has one adapter."""
    gateway = await make(allowed_sources="s3://bucket/adapters")
    folder = gateway.settings.adapter_folder / gateway.make_adapter("here")
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        bucket.pipe(f"{URL}/{name}", (folder / name).read_bytes())
    return gateway


async def load(gateway: ScriptedGateway, source: str = URL) -> Any:
    return await gateway.client.post("/admin/adapters", json={"name": "risk", "source": source})


async def test_an_adapter_in_a_bucket_is_live_and_shown_with_its_address(
    scripted_gateway: MakeGateway, bucket: Bucket
) -> None:
    gateway = await with_one(scripted_gateway, bucket)
    response = await load(gateway)
    answer = LoadAnswer.model_validate(response.json())
    assert (response.status_code, answer.adapter.live) == (201, answer.version)
    assert answer.adapter.versions[0].source == URL
    url = f"/admin/operations/{response.headers['x-operation-id']}"
    operation = (await gateway.client.get(url)).json()
    assert operation["phases"][0]["phase"] == "fetch"
    assert (await load(gateway)).status_code == 200
    report = (await gateway.client.post("/admin/adapters/validate", json={"source": URL})).json()
    assert report["ok"] is True
    assert [p.name for p in (gateway.settings.home / "store").iterdir() if p.name[0] == "."] == []
    await gateway.life.down()
    again = await scripted_gateway(allowed_sources="s3://bucket/adapters")
    assert str(again.gateway.adapters.board.behind("risk").version) == answer.version  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("s3://bucket/elsewhere/risk", 422, "adapter_source_refused"),
        ("s3://bucket/adapters/none", 422, "adapter_source_refused"),
        ("hf://org/risk", 422, "adapter_source_refused"),
    ],
)
async def test_what_is_not_there_or_not_allowed_is_refused(
    scripted_gateway: MakeGateway, bucket: Bucket, source: str, status: int, code: str
) -> None:
    gateway = await with_one(scripted_gateway, bucket)
    response = await load(gateway, source)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert gateway.engine.adapters == {}


async def test_a_store_that_breaks_off_is_502_without_what_it_said(
    scripted_gateway: MakeGateway, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await with_one(scripted_gateway, bucket)

    def fail(self: Any, path: str, **options: Any) -> Any:
        raise OSError("https://bucket/?X-Amz-Signature=topsecret")

    monkeypatch.setattr(Bucket, "info", fail)
    response = await load(gateway)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "adapter_fetch_failed")
    await gateway.gateway.events.flush()
    audit = await gateway.client.get("/admin/audit")
    assert "adapter_fetch_failed" in audit.text
    assert "topsecret" not in response.text + audit.text


async def test_a_store_whose_package_is_missing_is_found_at_the_start(
    scripted_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(SettingsError, match="pip install s3fs"):
        await scripted_gateway(allowed_sources="s3://bucket/adapters")
