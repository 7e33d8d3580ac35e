"""A tiny base beside itself with a rounded output layer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bases.passport import read_passport
from bases.resolve import resolve_base
from quantize.errors import QuantizeError
from quantize.lm_head.measure import RoundedHead, measure_lm_head
from quantize.lm_head.record import read_record
from quantize.lm_head.rounding import restore_table, round_table
from quantize.quality.errors import QualityError
from quantize.quality.served_model import load_as_served
from quantize.settings import load_quantize_settings


def test_only_the_logits_change_and_they_are_those_of_the_rounded_table(
    tiny_original: Path, tmp_path: Path
) -> None:
    model = load_as_served(resolve_base(str(tiny_original), home=tmp_path))
    stored = model.get_output_embeddings().weight.clone()
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.inference_mode():
        before = model(input_ids=ids, output_hidden_states=True)
        found = RoundedHead(model)(input_ids=ids).logits
        after = model(input_ids=ids).logits
    expected = before.hidden_states[-1] @ restore_table(*round_table(stored)).t()
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.equal(found, before.logits)
    assert torch.equal(after, before.logits)
    assert torch.equal(model.get_input_embeddings().weight, stored)


def test_what_was_measured_is_kept_for_that_base(tiny_original: Path, tmp_path: Path) -> None:
    base = resolve_base(str(tiny_original), home=tmp_path)
    settings = load_quantize_settings(lm_head_bits=8, row_tokens=64, held_out_rows=2)
    record = measure_lm_head(base, settings=settings, home=tmp_path)
    assert read_record(tmp_path, read_passport(base, home=tmp_path).fingerprint) == record
    assert 0 < record.quality.mean_kl_nats.value < 0.01
    assert record.problems()[0] == "126 tokens are fewer than 1,000"


def test_an_output_layer_that_cannot_be_rounded_is_an_error() -> None:
    model = SimpleNamespace(get_output_embeddings=lambda: torch.nn.Linear(40, 8))
    with pytest.raises(QualityError, match=r"stays as it is stored: .* 40 columns"):
        RoundedHead(model)


def test_figures_that_cannot_be_kept_are_said_to_be_lost(tiny_original: Path, tmp_path: Path) -> None:
    base = resolve_base(str(tiny_original), home=tmp_path)
    settings = load_quantize_settings(lm_head_bits=8, row_tokens=64, held_out_rows=2)
    (tmp_path / "quantize").write_text("in the way")
    with pytest.raises(QuantizeError, match=r"cannot be kept in .*lm-head-8: "):
        measure_lm_head(base, settings=settings, home=tmp_path)
