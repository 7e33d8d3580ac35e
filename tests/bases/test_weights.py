from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bases.errors import BaseInvalidError
from bases.weights import INDEX_FILE, hash_weights, read_tensors, weight_files


def some_tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {f"layer.{i}.weight": generator.standard_normal((3, i + 1), dtype=np.float32) for i in range(6)}


def write_shards(folder: Path, tensors: dict[str, np.ndarray], shard_of: list[int]) -> None:
    """Spread `tensors` over shards as transformers does, index included."""
    names = list(tensors)
    weight_map = {name: f"model-{shard_of[i]}.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in names if weight_map[name] == file}, folder / file)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


@settings(deadline=None, max_examples=25)
@given(shard_of=st.lists(st.integers(0, 3), min_size=6, max_size=6), order=st.permutations(range(6)))
def test_the_hash_does_not_depend_on_sharding_or_order(shard_of, order):
    tensors = some_tensors()
    shuffled = {name: tensors[name] for name in np.array(list(tensors))[list(order)].tolist()}
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as spread:
        save_file(tensors, Path(whole) / "model.safetensors")
        write_shards(Path(spread), shuffled, shard_of)
        assert hash_weights(Path(whole)) == hash_weights(Path(spread))


@settings(deadline=None, max_examples=25)
@given(index=st.integers(0, 5), bit=st.integers(0, 95))
def test_the_hash_changes_with_any_single_bit(index, bit):
    tensors = some_tensors()
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder) / "model.safetensors")
        before = hash_weights(Path(folder))
        raw = tensors[f"layer.{index}.weight"].view(np.uint8).reshape(-1)
        raw[bit // 8] ^= 1 << (bit % 8)
        save_file(tensors, Path(folder) / "model.safetensors")
        assert hash_weights(Path(folder)) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {**t, "layer.0.weight": t["layer.0.weight"].reshape(1, 3)},
        lambda t: {**t, "layer.0.weight": t["layer.0.weight"].view(np.int32)},
        lambda t: {"renamed" if name == "layer.0.weight" else name: value for name, value in t.items()},
    ],
    ids=["shape", "dtype", "name"],
)
def test_the_hash_changes_with_shape_dtype_or_name_alone(tmp_path, change):
    save_file(some_tensors(), tmp_path / "model.safetensors")
    before, size_before = hash_weights(tmp_path)
    save_file(change(some_tensors()), tmp_path / "model.safetensors")
    after, size_after = hash_weights(tmp_path)
    assert after != before
    assert size_after == size_before


def test_the_size_is_that_of_the_tensors(tmp_path):
    save_file(some_tensors(), tmp_path / "model.safetensors")
    assert hash_weights(tmp_path)[1] == sum(tensor.nbytes for tensor in some_tensors().values())


def test_what_the_header_lists_is_where_it_says(tmp_path):
    save_file(some_tensors(), tmp_path / "model.safetensors")
    for tensor in read_tensors(tmp_path / "model.safetensors"):
        raw = tensor.file.read_bytes()[tensor.start_byte : tensor.end_byte]
        found = np.frombuffer(raw, np.float32).reshape(tensor.shape)
        assert np.array_equal(found, some_tensors()[tensor.name])


def test_the_index_decides_which_files_count(tmp_path):
    write_shards(tmp_path, some_tensors(), [0, 0, 0, 1, 1, 1])
    save_file(some_tensors(), tmp_path / "consolidated.safetensors")
    assert [file.name for file in weight_files(tmp_path)] == ["model-0.safetensors", "model-1.safetensors"]


def test_the_single_file_goes_before_a_second_copy(tmp_path):
    save_file(some_tensors(), tmp_path / "model.safetensors")
    save_file(some_tensors(), tmp_path / "consolidated.safetensors")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]


def test_a_broken_index_is_refused(tmp_path):
    (tmp_path / INDEX_FILE).write_text('{"weights": 1}')
    with pytest.raises(BaseInvalidError, match="weight_map"):
        weight_files(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    save_file(some_tensors(), tmp_path / "a.safetensors")
    save_file(some_tensors(), tmp_path / "b.safetensors")
    with pytest.raises(BaseInvalidError, match=r"both a\.safetensors and b\.safetensors"):
        hash_weights(tmp_path)


def test_no_weights_are_refused(tmp_path):
    with pytest.raises(BaseInvalidError, match="no safetensors weights"):
        hash_weights(tmp_path)


def test_a_git_lfs_pointer_is_refused_with_what_it_is(tmp_path):
    (tmp_path / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 538090408\n"
    )
    with pytest.raises(BaseInvalidError, match="Git LFS pointer"):
        hash_weights(tmp_path)


@given(kept_fraction=st.floats(0, 0.999))
@settings(deadline=None, max_examples=40)
def test_a_file_cut_off_anywhere_is_refused(kept_fraction):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file(some_tensors(), file)
        raw = file.read_bytes()
        file.write_bytes(raw[: int(len(raw) * kept_fraction)])
        with pytest.raises(BaseInvalidError, match=r"model\.safetensors .*Fetch it again"):
            hash_weights(Path(folder))


@pytest.mark.parametrize(
    "header", [b"[1, 2]", b"not json", b'{"a": {"dtype": "F32"}}', b'{"a": 3}', b"\xff\xfe"]
)
def test_a_broken_header_is_refused(tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(BaseInvalidError, match="broken safetensors header"):
        hash_weights(tmp_path)
