"""A copy holds the same numbers as well as its format can, and what else the file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from benchmarks.load.errors import PeerUnavailableError
from benchmarks.load.peers.gguf_copy import FORMATS, write_copy

VALUES = np.random.default_rng(1).standard_normal((4, 64), dtype=np.float32)
ROUNDED = quantize(VALUES, GGMLQuantizationType.Q4_1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "four-bit.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_file_type(3)
    writer.add_token_list(["a", "b"])
    for name in ("token_embd.weight", "blk.0.ffn_up.weight"):
        writer.add_tensor(name, ROUNDED, raw_dtype=GGMLQuantizationType.Q4_1)
    writer.add_tensor("output_norm.weight", VALUES[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_weights_in_float32_are_those_of_the_file_and_its_metadata_stays(
    tmp_path: Path, source: Path
) -> None:
    copy = GGUFReader(write_copy(source, tmp_path / "float32.gguf", "f32"))
    tensors = {tensor.name: tensor for tensor in copy.tensors}
    assert {tensor.tensor_type for tensor in copy.tensors} == {GGMLQuantizationType.F32}
    np.testing.assert_array_equal(
        tensors["blk.0.ffn_up.weight"].data, dequantize(ROUNDED, GGMLQuantizationType.Q4_1)
    )
    np.testing.assert_array_equal(tensors["output_norm.weight"].data, VALUES[0])
    said = {name: field.contents() for name, field in copy.fields.items()}
    assert said["general.architecture"] == "llama"
    assert said["llama.block_count"] == 2
    assert said["general.file_type"] == 0
    assert said["tokenizer.ggml.tokens"] == ["a", "b"]


@pytest.mark.parametrize(
    ("number_format", "embedding", "matrix"),
    [("bf16", "BF16", "BF16"), ("q8", "Q8_0", "Q8_0"), ("q4", "Q8_0", "Q4_0")],
)
def test_fewer_bits_round_those_numbers_and_leave_vectors_as_they_are(
    tmp_path: Path, source: Path, number_format: str, embedding: str, matrix: str
) -> None:
    assert number_format in FORMATS
    copy = GGUFReader(write_copy(source, tmp_path / "copy.gguf", number_format))
    tensors = {tensor.name: tensor for tensor in copy.tensors}
    found = tensors["blk.0.ffn_up.weight"]
    assert found.tensor_type.name == matrix
    assert tensors["token_embd.weight"].tensor_type.name == embedding
    values, original = (
        dequantize(found.data, found.tensor_type),
        dequantize(ROUNDED, GGMLQuantizationType.Q4_1),
    )
    step = {"bf16": 2.0**-8, "q8": 2.0**-7, "q4": 2.0**-3}[number_format]
    assert np.abs(values - original).max() <= step * np.abs(original).max()
    np.testing.assert_array_equal(tensors["output_norm.weight"].data, VALUES[0])


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "no.gguf"
    source.write_bytes(b"no such thing" * 10)
    with pytest.raises(PeerUnavailableError, match="cannot be read as a GGUF file"):
        write_copy(source, tmp_path / "float32.gguf", "f32")
