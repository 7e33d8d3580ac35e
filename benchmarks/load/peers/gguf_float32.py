"""A GGUF file with its weights dequantised: the same numbers as the base that vLLM serves, in float32."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load.errors import PeerUnavailableError


def write_float32(source: Path, target: Path) -> Path:
    """Write `source` with every tensor in float32 to `target`, which is returned. Raises PeerUnavailableError."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
    from gguf.quants import dequantize

    try:
        reader = GGUFReader(source)
    except (ValueError, IndexError, OSError) as error:
        raise PeerUnavailableError(f"{source} cannot be read as a GGUF file: {error}") from None
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name == "general.architecture" or name.startswith("GGUF."):  # the writer's own
            continue
        value = int(LlamaFileType.ALL_F32) if name == "general.file_type" else field.contents()
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, weights, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
