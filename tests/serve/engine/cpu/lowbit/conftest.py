"""The compiled kernels, for the tests that need them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bases.settings import BasesSettings
from serve.engine.cpu.lowbit import library, source
from serve.engine.cpu.lowbit.build import build_library, find_compiler


@pytest.fixture(scope="session")
def compiled() -> library.Kernels:
    """The library that set-up made, made now where a compiler is at hand; skips where there is neither."""
    home = BasesSettings().home
    if source.find_library(home) is None:
        if find_compiler() is None:
            pytest.skip("there is no C++ compiler")
        build_library(home)
    found = library.load(home)
    if found.kind != library.NATIVE:
        pytest.skip(found.reason)
    return found


@pytest.fixture(params=list(source.ISA_FLAGS))
def native(compiled: library.Kernels, request: pytest.FixtureRequest) -> Any:
    """The operators with each instruction set that this processor has."""
    operators = torch.ops.hotswap_lowbit
    if not operators.select(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield operators
    operators.select(compiled.isa)
