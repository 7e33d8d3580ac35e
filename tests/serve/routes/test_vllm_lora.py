"""vLLM's runtime loading: the same verbs as the admin API, for whoever may use that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
KEY = "a key that is long enough for the admin API"


async def test_an_adapter_comes_and_goes_in_vllms_words(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    gateway.make_adapter("risk-v1")
    loaded = await gateway.client.post(LOAD, json={"lora_name": "risk", "lora_path": "risk-v1"})
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'risk' added successfully.")
    answer = await gateway.client.post("/generate", json={"prompt": "x", "adapter": "risk", "max_tokens": 1})
    assert answer.json()["text"].startswith("risk@")
    gone = await gateway.client.post(UNLOAD, json={"lora_name": "risk", "lora_int_id": 1})
    assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'risk' removed successfully.")
    again = await gateway.client.post(UNLOAD, json={"lora_name": "risk"})
    assert (again.status_code, again.json()["error"]["code"]) == (404, "adapter_not_found")


async def test_an_absolute_path_may_lead_into_the_adapter_root_alone(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    root = gateway.settings.adapter_folder
    gateway.make_adapter("risk-v1")
    inside = await gateway.client.post(LOAD, json={"lora_name": "risk", "lora_path": str(root / "risk-v1")})
    assert inside.status_code == 200, inside.text
    for path in (str(root.parent), "/etc", "../risk-v1", "hf://somebody/risk"):
        outside = await gateway.client.post(LOAD, json={"lora_name": "other", "lora_path": path})
        assert (outside.status_code, outside.json()["error"]["code"]) == (422, "adapter_source_refused"), path


@pytest.mark.parametrize("in_place", [True, False, None])
async def test_a_name_that_exists_is_swapped_whatever_load_inplace_says(
    scripted_gateway: MakeGateway, in_place: bool | None
) -> None:
    gateway = await scripted_gateway()
    before = await gateway.load("risk")
    gateway.make_adapter("risk-v2", seed=7)
    body = {"lora_name": "risk", "lora_path": "risk-v2", "load_inplace": in_place}
    assert (await gateway.client.post(LOAD, json=body)).status_code == 200
    live = gateway.gateway.adapters.board.behind("risk")
    assert live is not None
    assert str(live.version) != before


@pytest.mark.parametrize(
    "body",
    [
        {"lora_name": "risk"},
        {"lora_path": "risk"},
        {"lora_name": "", "lora_path": "risk"},
        {"lora_name": "Risk!", "lora_path": "risk"},
        {"lora_name": "risk", "lora_path": "risk", "is_3d_lora_weight": True},
        {"lora_name": "risk", "lora_path": "risk", "base_model_name": "x"},
    ],
)
async def test_what_cannot_be_loaded_is_refused(
    scripted_gateway: MakeGateway, body: dict[str, object]
) -> None:
    gateway = await scripted_gateway()
    assert (await gateway.client.post(LOAD, json=body)).status_code == 422


async def test_the_admin_scope_is_asked_for_before_the_body(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(admin_key=KEY)
    for path in (LOAD, UNLOAD):
        refused = await gateway.client.post(path, json={"anything": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        told = await gateway.client.post(
            path, json={"anything": 1}, headers={"Authorization": f"Bearer {KEY}"}
        )
        assert told.status_code == 422
