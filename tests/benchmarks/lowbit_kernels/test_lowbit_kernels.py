"""The table of the kernels' benchmark, and a run on a small layer."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.lowbit_kernels.__main__ import app
from benchmarks.lowbit_kernels.contenders import REFERENCE, contenders
from benchmarks.lowbit_kernels.measurement import measure
from benchmarks.lowbit_kernels.report import table
from benchmarks.lowbit_kernels.shapes import Shape

# vLLM's kernels are among the contenders.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

SMALL = Shape("tiny", "o", 64, 48)


def test_all_contenders_compute_the_shape_and_are_measured_in_every_round() -> None:
    ways = contenders(SMALL, working_set_bytes=20_000)
    assert ways[0].title == REFERENCE
    titles = {way.title for way in ways}
    assert len(titles) == len(ways)
    assert {"ours, 4 bits", "ours, int8 x int8", "torch int4", "vLLM float32", "vLLM bfloat16"} <= titles
    x = torch.randn(3, 64)
    for way in ways:
        assert way.call(x.to(way.dtype), 5).shape == (3, 48)
    seconds = measure(ways, 64, 3, rounds=2)
    assert {title: len(samples) for title, samples in seconds.items()} == {way.title: 2 for way in ways}
    assert all(sample > 0 for samples in seconds.values() for sample in samples)


def test_the_vocabulary_is_measured_in_16_and_32_bits_only() -> None:
    ways = contenders(Shape("tiny", "lm_head", 64, 48, is_vocabulary=True), working_set_bytes=1)
    assert [way.title for way in ways][:3] == [REFERENCE, "torch bfloat16", "ours, bfloat16 weights"]
    assert all(
        way.title in {"vLLM float32", "vLLM bfloat16", "ours, float32", "ours, bfloat16"} for way in ways[3:]
    )


def test_a_cell_has_median_spread_and_ratio_of_the_same_rounds() -> None:
    seconds = {REFERENCE: [4e-6, 6e-6, 8e-6], "ours": [2e-6, 2e-6, 2e-6]}
    text = table([("o 64 x 48", 3, seconds), ("head", 1, {REFERENCE: [1e-6]})], REFERENCE)
    assert "| o 64 x 48 | 3 | 6 us (4-8) | 2 us (2-2), 3.0x |" in text
    assert "| head | 1 | 1 us (1-1) |  |" in text


def test_wrong_usage_is_named() -> None:
    for arguments, message in ((["--tokens", "1,x"], "comma list"), (["--layers", "nope"], "nope")):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2
        assert message in done.output
