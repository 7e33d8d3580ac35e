"""Copies of a GGUF file with its weights in another number format, made without llama.cpp's own tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load.errors import PeerUnavailableError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, LlamaFileType

# What `write_copy` can write, each with the format of its matrices in words.
FORMATS: dict[str, str] = {
    "f32": "weights in float32, the numbers that the gateway's base has",
    "bf16": "weights in bfloat16",
    "q8": "weights of 8 bits (Q8_0)",
    "q4": "weights of 4 bits (Q4_0), embedding and output of 8 (Q8_0)",
}
_EMBEDDINGS = ("token_embd.weight", "output.weight")


def write_copy(source: Path, target: Path, number_format: str) -> Path:
    """Write `source` with its matrices in one of FORMATS to `target`, which is returned; vectors are in float32.

    Numbers of fewer bits are rounded from those that `source` stands for. Raises PeerUnavailableError.
    """
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize, quantize

    try:
        reader = GGUFReader(source)
    except (ValueError, IndexError, OSError) as error:
        raise PeerUnavailableError(f"{source} cannot be read as a GGUF file: {error}") from None
    matrices, embeddings, file_type = _kinds(number_format)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name == "general.architecture" or name.startswith("GGUF."):  # the writer's own
            continue
        value = int(file_type) if name == "general.file_type" else field.contents()
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        wanted = embeddings if tensor.name in _EMBEDDINGS else matrices
        if weights.ndim < 2:
            wanted = GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, quantize(weights, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _kinds(number_format: str) -> tuple[GGMLQuantizationType, GGMLQuantizationType, LlamaFileType]:
    """(of matrices, of embedding and output, of the file)."""
    from gguf import GGMLQuantizationType as Kind
    from gguf import LlamaFileType as File

    return {
        "f32": (Kind.F32, Kind.F32, File.ALL_F32),
        "bf16": (Kind.BF16, Kind.BF16, File.MOSTLY_BF16),
        "q8": (Kind.Q8_0, Kind.Q8_0, File.MOSTLY_Q8_0),
        "q4": (Kind.Q4_0, Kind.Q8_0, File.MOSTLY_Q4_0),
    }[number_format]
