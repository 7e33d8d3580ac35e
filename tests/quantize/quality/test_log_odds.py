"""How far the original's own words moved: the gateway's measure, on what the original says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bases.resolve import resolve_base
from bases.tiny import make_tiny_base
from quantize.quality.log_odds import base_rounding, log_odds
from quantize.quality.served_model import load_as_served
from serve.lifecycle.verdict import log_odds as gateway_log_odds


@given(logprob=st.floats(min_value=-1e4, max_value=0.0) | st.sampled_from([-1e-9, -1e-12, -1e-6, 0.0]))
def test_log_odds_are_the_gateway_s(logprob: float) -> None:
    ours = float(log_odds(torch.tensor([logprob], dtype=torch.float64))[0])
    assert ours == pytest.approx(gateway_log_odds(logprob), rel=1e-9, abs=1e-9)


def test_what_moved_is_what_the_original_says_greedily(tmp_path: Path) -> None:
    base = resolve_base(str(make_tiny_base(tmp_path / "tiny", layers=1, tied_embeddings=True)), home=tmp_path)
    original, moved = load_as_served(base), load_as_served(base)
    with torch.no_grad():
        moved.model.layers[0].mlp.up_proj.weight += 0.05
    prompts = [[5, 6, 7, 8], [9, 10]]
    rounding, num_tokens = base_rounding(original, moved, prompts, num_tokens=5)
    squares = []
    for prompt in prompts:
        said = original.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=5,
            do_sample=False,
        )[0, len(prompt) :]
        for place, token in enumerate(said):
            ids = torch.tensor([[*prompt, *said[:place].tolist()]])
            odds = [
                gateway_log_odds(float(torch.log_softmax(model(ids).logits[0, -1].double(), -1)[token]))
                for model in (original, moved)
            ]
            squares.append((odds[1] - odds[0]) ** 2)
    assert num_tokens == len(squares)
    assert rounding > 0
    assert rounding == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-3)
