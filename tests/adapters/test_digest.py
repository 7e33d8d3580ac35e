from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.artefact import WEIGHTS_NAME
from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.tiny import make_tiny_adapter
from tests.adapters.conftest import LINEAR_MODULES, load_tensors, pack, read_weights, write_tensors

same_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)


def digest(folder: Path) -> str:
    found = check_adapter(folder, target=None).facts.digest
    assert found is not None
    return found


def test_the_digest_of_a_known_adapter_never_changes(adapter):
    """Digests are stored and pinned by clients: a change here is a change of DIGEST_FORMAT."""
    (adapter / WEIGHTS_NAME).write_bytes(
        pack(
            {
                "base_model.model.m.lora_A.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
                "base_model.model.m.lora_B.weight": {
                    "dtype": "F32",
                    "shape": [1, 1],
                    "data_offsets": [8, 12],
                },
            },
            np.array([1, 2, 3], "<f4").tobytes(),
        )
    )
    (adapter / CONFIG_NAME).write_text('{"peft_type":"LORA","r":1,"lora_alpha":2,"target_modules":["m"]}')
    preimage = (
        b'{"config":{"features":{},"modules":{"m":[1,2.0]},"peft_type":"LORA","rslora":false},'
        b'"format":"hotswap-adapter-1"}\n'
        b'["base_model.model.m.lora_A.weight","F32",[1,2],8]\n\x00\x00\x80\x3f\x00\x00\x00\x40'
        b'["base_model.model.m.lora_B.weight","F32",[1,1],4]\n\x00\x00\x40\x40'
    )
    assert digest(adapter) == hashlib.sha256(preimage).hexdigest()


@same_folder
@given(st.randoms())
def test_the_order_of_tensors_and_keys_does_not_count(adapter, random):
    before = digest(adapter)
    header, data = read_weights(adapter)
    header.pop("__metadata__", None)
    names = list(header)
    random.shuffle(names)
    moved, parts, position = {}, [], 0
    for name in names:
        begin, end = header[name]["data_offsets"]
        moved[name] = {**header[name], "data_offsets": [position, position + end - begin]}
        parts.append(data[begin:end])
        position += end - begin
    listed = list(moved.items())
    random.shuffle(listed)
    moved = dict(listed)
    if random.random() < 0.5:
        moved["__metadata__"] = {"note": str(random.random())}
    (adapter / WEIGHTS_NAME).write_bytes(pack(moved, b"".join(parts)))
    keys = list(json.loads((adapter / CONFIG_NAME).read_text()).items())
    random.shuffle(keys)
    (adapter / CONFIG_NAME).write_text(json.dumps(dict(keys), indent=random.choice([None, 1, 4])))
    assert digest(adapter) == before


@same_folder
@given(st.data())
def test_every_bit_of_the_weights_counts(adapter, data):
    original = (adapter / WEIGHTS_NAME).read_bytes()
    before = digest(adapter)
    start = 8 + int.from_bytes(original[:8], "little")
    position = data.draw(st.integers(start, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    (adapter / WEIGHTS_NAME).write_bytes(changed)
    assert digest(adapter) != before
    (adapter / WEIGHTS_NAME).write_bytes(original)


@pytest.mark.parametrize(
    "changes",
    [
        {"base_model_name_or_path": "/elsewhere"},
        {"revision": "main"},
        {"peft_version": "9.9"},
        {"inference_mode": False},
        {"lora_dropout": 0.5},
        {"init_lora_weights": "gaussian"},
        {"lora_alpha": 8.0},
        {"rank_pattern": {}},
        {"alpha_pattern": None},
        {"alpha_pattern": {"q_proj": 8}},
        {"alpha_pattern": {"k_proj": 99}},
        {"use_dora": ...},
        {"a_key_of_tomorrow": None},
    ],
)
def test_what_does_not_change_the_outputs_does_not_count(adapter, edit_config, changes):
    before = digest(adapter)
    edit_config(**changes)
    assert digest(adapter) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_alpha": 9},
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 9}},
        {"rank_pattern": {"v_proj": 8}},
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"alora_invocation_tokens": [1]},
    ],
)
def test_what_changes_the_outputs_counts(adapter, edit_config, changes):
    before = digest(adapter)
    edit_config(**changes)
    assert digest(adapter) != before


def test_the_first_pattern_that_matches_wins(adapter, edit_config):
    edit_config(alpha_pattern={"q_proj": 2, "layers.0.self_attn.q_proj": 3})
    first = digest(adapter)
    edit_config(alpha_pattern={"layers.0.self_attn.q_proj": 3, "q_proj": 2})
    assert digest(adapter) != first


def test_name_shape_and_dtype_of_a_tensor_count(adapter):
    before = digest(adapter)
    tensors = load_tensors(adapter)
    name = next(iter(tensors))
    seen = {before}
    for changed in (
        {**{k: v for k, v in tensors.items() if k != name}, name.replace("q_proj", "k_proj"): tensors[name]},
        {**tensors, name: tensors[name].reshape(tensors[name].shape[::-1])},
        {**tensors, name: tensors[name].view(np.float16)},
    ):
        write_tensors(adapter / WEIGHTS_NAME, changed)
        seen.add(digest(adapter))
    assert len(seen) == 4


def test_another_seed_is_another_version_and_the_same_seed_is_not(tmp_path):
    def make(name: str, seed: int) -> str:
        return digest(make_tiny_adapter(tmp_path / name, linear_modules=LINEAR_MODULES, seed=seed))

    assert make("a", 1) == make("b", 1) != make("c", 2)
