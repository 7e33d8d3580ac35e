from __future__ import annotations

import pytest

from adapters.export.module_names import served_name

Q0 = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    "name",
    [
        Q0,
        f"base_model.model.{Q0}",
        f"base_model.model.{Q0}.base_layer",
        f"_orig_mod.base_model.model.{Q0}",
        f"module.base_model.model.{Q0}",
        "_fsdp_wrapped_module.base_model.model.model.layers.0._checkpoint_wrapped_module.self_attn.q_proj",
        "base_model.model.model.language_model.layers.0.self_attn.q_proj",
        "base_model.model.language_model.model.layers.0.self_attn.q_proj",
    ],
)
def test_wrappers_and_prefixes_are_taken_off(name: str):
    assert served_name(name, {Q0}) == Q0


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens", "model.layers.7.self_attn.q_proj", ""])
def test_what_the_base_does_not_have_has_no_name(name: str):
    assert served_name(name, {Q0}) is None
