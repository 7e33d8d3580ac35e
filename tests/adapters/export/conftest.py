"""Tiny bases of two architectures, made once."""

from __future__ import annotations

import pytest

from tests.adapters.export.trained_models import TinyBase, make_base


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return make_base(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return make_base(tmp_path_factory.mktemp("qwen2"), "qwen2")
