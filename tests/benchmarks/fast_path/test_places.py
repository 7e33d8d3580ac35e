"""The comparison of LoRA layers: both ways run, each case has its line, bad words are refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.fast_path import places

with warnings.catch_warnings():  # importing vLLM's layers raises some of torch's
    warnings.simplefilter("ignore")
    import vllm.lora.layers  # noqa: F401

CASE = places.Case(8, 32, 4, [60.0, 50.0, 70.0], [6.0, 5.0, 10.0])


def test_both_ways_are_timed_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PLACES", ((16, (8, 4)), (8, (16,))))
    monkeypatch.setattr(places, "_LAYERS", 2)
    monkeypatch.setattr(places, "_CACHE_BYTES", 1024)
    case = places.measure(rank=2, rows=5, adapters=2, rounds=3, dtype=torch.bfloat16)
    assert (case.rank, case.rows, case.adapters) == (2, 5, 2)
    assert len(case.torch_operators) == len(case.compiled) == 3
    assert min(case.torch_operators + case.compiled) > 0


def test_a_line_has_medians_with_spread_and_the_ratio_of_the_same_rounds() -> None:
    assert places.table([CASE]).splitlines()[2] == (
        "| 8 | 32 | 4 | 60.0 (50.0-70.0) | 6.0 (5.0-10.0) | 10.0 |"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "8,x"], "not a comma list"),
        (["--ranks", "0"], "0 is no rank"),
        (["--dtype", "float16"], "neither bfloat16"),
    ],
)
def test_bad_options_are_refused_before_anything_is_measured(arguments: list[str], message: str) -> None:
    refused = CliRunner().invoke(places.app, arguments)
    assert refused.exit_code == 2
    assert message in refused.output
