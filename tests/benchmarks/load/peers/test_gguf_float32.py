"""The float32 copy holds the same numbers, and what else the file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from benchmarks.load.errors import PeerUnavailableError
from benchmarks.load.peers.gguf_float32 import write_float32


def test_weights_are_those_of_the_file_and_its_metadata_stays(tmp_path: Path) -> None:
    source = tmp_path / "four-bit.gguf"
    values = np.random.default_rng(1).standard_normal((4, 64), dtype=np.float32)
    rounded = quantize(values, GGMLQuantizationType.Q4_1)
    writer = GGUFWriter(source, "llama")
    writer.add_block_count(2)
    writer.add_file_type(3)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("output.weight", rounded, raw_dtype=GGMLQuantizationType.Q4_1)
    writer.add_tensor("output_norm.weight", values[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    copy = GGUFReader(write_float32(source, tmp_path / "float32.gguf"))
    tensors = {tensor.name: tensor for tensor in copy.tensors}
    assert {tensor.tensor_type for tensor in copy.tensors} == {GGMLQuantizationType.F32}
    np.testing.assert_array_equal(
        tensors["output.weight"].data, dequantize(rounded, GGMLQuantizationType.Q4_1)
    )
    np.testing.assert_array_equal(tensors["output_norm.weight"].data, values[0])
    said = {name: field.contents() for name, field in copy.fields.items()}
    assert said["general.architecture"] == "llama"
    assert said["llama.block_count"] == 2
    assert said["general.file_type"] == 0
    assert said["tokenizer.ggml.tokens"] == ["a", "b"]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "no.gguf"
    source.write_bytes(b"no such thing" * 10)
    with pytest.raises(PeerUnavailableError, match="cannot be read as a GGUF file"):
        write_float32(source, tmp_path / "float32.gguf")
