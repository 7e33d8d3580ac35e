"""A tiny base to calibrate, and files of examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import make_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ResolvedBase:
    folder = tmp_path_factory.mktemp("base")
    return resolve_base(str(make_tiny_base(folder / "tiny", layers=1, hidden_size=64)), home=folder)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as JSON lines."""

    def write_rows(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return path

    return write_rows


def chat(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
    }
