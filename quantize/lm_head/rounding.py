"""The output layer's weights to 8 bits: the one rounding that is measured and served."""

from __future__ import annotations

from typing import Any

# A change of what `round_table` gives needs another number: what was measured before says nothing about it.
FORMAT = 1
# Zero in the bytes, as the kernels read symmetric weights of 8 bits.
ZERO = 128
_MOST = 127
# Columns that share a scale. GGUF's Q8_0 has the same blocks, so that a table that came from it, as the default
# base's, is met exactly. Rounded to bfloat16 in between (as in its W4 form), 32 columns leave 0.14 % of root mean
# square error, 64 leave 0.62 %, and whole rows 1.17 %; 64 are some 15 % faster.
GROUP = 32
_CHUNK_ROWS = 4096


def round_table(table: Any) -> tuple[Any, Any]:
    """(uint8 [N, K], float32 scales [N, K / GROUP]); table [N, K] is about (bytes - ZERO) * scale.

    `table` is float32, bfloat16 or float16. Symmetric: the largest magnitude of a group becomes 127, ties round
    to even, so that no weight moves by more than half a scale. Raises ValueError for a width that is no multiple
    of GROUP, and for weights that are no finite numbers.
    """
    import torch

    rows, columns = table.shape
    if columns % GROUP:
        raise ValueError(f"its {columns} columns are no multiple of {GROUP}")
    values = torch.empty((rows, columns), dtype=torch.uint8)
    scales = torch.empty((rows, columns // GROUP), dtype=torch.float32)
    for start in range(0, rows, _CHUNK_ROWS):  # float32 copies of a large vocabulary would fill the memory
        part = slice(start, start + _CHUNK_ROWS)
        grouped = table[part].to(torch.float32).reshape(-1, columns // GROUP, GROUP)
        largest = grouped.abs().amax(-1)
        if not bool(torch.isfinite(largest).all()):
            raise ValueError("it has weights that are no finite numbers")
        scale = torch.where(largest > 0, largest / _MOST, torch.ones(()))
        rounded = (grouped / scale[..., None]).round().clamp(-_MOST, _MOST) + ZERO
        values[part] = rounded.to(torch.uint8).reshape(-1, columns)
        scales[part] = scale
    return values, scales


def restore_table(values: Any, scales: Any) -> Any:
    """float32 [N, K]: what the rounded table stands for."""
    import torch

    rows, columns = values.shape
    grouped = values.reshape(rows, scales.shape[1], -1).to(torch.float32) - ZERO
    return (grouped * scales[..., None]).reshape(rows, columns)
