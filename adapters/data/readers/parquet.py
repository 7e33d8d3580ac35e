"""Parquet, read in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adapters.data.example import Origin
from adapters.data.problems import BadLines
from adapters.data.readers.row import ReadLimits, Row
from adapters.errors import DataError

_BATCH_ROWS = 512


def read_parquet(path: Path, _bad: BadLines, _limits: ReadLimits) -> Iterator[Row]:
    """Origin counts the rows from 1. Raises DataError for a broken file."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(Origin(path.name, number), values)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: text that is not UTF-8
        after = f" after row {number:,}" if number else ""
        reason = str(error).splitlines()[0][:200]
        raise DataError(
            f"{path.name}: the file cannot be read as Parquet{after} ({reason}); write or copy it anew."
        ) from None
