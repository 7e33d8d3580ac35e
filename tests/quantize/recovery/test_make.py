"""A recovery adapter from two bases and rows: published when it pays, and only then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.check import check_adapter
from adapters.errors import ExportError
from adapters.probe import read_probe
from adapters.target import describe_target
from adapters.tiny import make_tiny_adapter
from bases.passport import read_passport
from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import make_tiny_base
from quantize.recovery.errors import RecoveryError
from quantize.recovery.make import make_recovery
from quantize.recovery.outcome import RecoveryOutcome
from quantize.recovery.settings import RecoverySettings
from tests.quantize.recovery.conftest import quantise, quiet


@pytest.fixture
def recover(original: ResolvedBase, rows: list[list[int]], held_out: list[list[int]], tmp_path: Path) -> Any:
    """make_recovery with a home of its own; keyword arguments are settings."""

    def make(
        quantised: ResolvedBase, of: ResolvedBase = original, *, num_rows: int = 512, **given: Any
    ) -> RecoveryOutcome:
        chosen = {"recover_rank": 8, "recover_steps": 8, "recover_batch_tokens": 256} | given
        return make_recovery(
            quantised,
            of,
            rows=rows[:num_rows],
            held_out=held_out,
            settings=RecoverySettings(**chosen),
            home=tmp_path / "home",
            progress=quiet,
        )

    return make


@pytest.mark.parametrize("method", ["closed-form", "distil", "both"])
def test_what_is_published_can_be_served_on_the_quantised_base(
    recover: Any, four_bits: ResolvedBase, tmp_path: Path, method: str
) -> None:
    outcome: RecoveryOutcome = recover(four_bits, recover_method=method, recover_learning_rate=3e-3)
    assert outcome.published and outcome.folder is not None and outcome.digest is not None
    assert outcome.folder == tmp_path / "home" / "adapters" / "recovery" / outcome.digest[:8]
    passport = read_passport(four_bits, home=tmp_path / "home")
    report = check_adapter(outcome.folder, target=describe_target(four_bits, passport))
    assert report.ok and not report.warnings
    assert outcome.after.mean_kl_nats.value < outcome.before.mean_kl_nats.value
    assert outcome.gain_nats.low is not None and outcome.gain_nats.low > 0
    assert (outcome.distillation is None) == (method == "closed-form")
    assert (outcome.closed_form_share is None) == (method == "distil")
    manifest = json.loads((outcome.folder / "hotswap.json").read_text())
    assert manifest["base"]["fingerprint"] == passport.fingerprint
    metrics = manifest["training"]["metrics"]
    assert metrics["held_out_divergence_nats_after"] == outcome.after.mean_kl_nats.value
    probe = read_probe(outcome.folder)
    assert probe is not None and probe.base_fingerprint == passport.fingerprint


def test_it_is_the_same_adapter_every_time(recover: Any, four_bits: ResolvedBase) -> None:
    first, second = (recover(four_bits, recover_steps=2) for _ in range(2))
    assert first.digest == second.digest is not None


def test_eight_bits_are_measured_with_activations_rounded(recover: Any, eight_bits: ResolvedBase) -> None:
    outcome: RecoveryOutcome = recover(eight_bits, recover_method="closed-form")
    # The weights' part of the gap is all that a closed form sees, and rank 8 takes some of that.
    assert outcome.closed_form_share is not None and 0 < outcome.closed_form_share < 1
    assert outcome.before.mean_kl_nats.value > 0


def test_an_adapter_that_does_harm_is_not_published(
    recover: Any, four_bits: ResolvedBase, tmp_path: Path
) -> None:
    # Too few rows to set some apart: nothing notices while it trains.
    outcome: RecoveryOutcome = recover(
        four_bits, num_rows=9, recover_method="distil", recover_learning_rate=3.0, recover_steps=4
    )
    assert not outcome.published and outcome.digest is None
    assert outcome.after.mean_kl_nats.value > outcome.before.mean_kl_nats.value
    assert outcome.recovered_share < 0
    assert not (tmp_path / "home" / "adapters").exists()
    assert "not published" in outcome.describe()[-1]


def test_training_that_only_does_harm_is_taken_back(recover: Any, four_bits: ResolvedBase) -> None:
    outcome: RecoveryOutcome = recover(
        four_bits, recover_method="distil", recover_learning_rate=3.0, recover_steps=5
    )
    assert outcome.distillation is not None and outcome.distillation.best_step == 0
    assert not outcome.published
    assert outcome.after.mean_kl_nats.value == pytest.approx(outcome.before.mean_kl_nats.value, rel=1e-4)


def test_with_a_task_adapter_on_top_the_figures_are_of_both_together(
    recover: Any, original: ResolvedBase, four_bits: ResolvedBase, tmp_path: Path
) -> None:
    passport = read_passport(original, home=tmp_path / "home")
    task = make_tiny_adapter(
        tmp_path / "home" / "adapters" / "task" / "0badc0de",
        linear_modules=passport.facts.linear_modules,
        rank=4,
        scale=0.2,
    )
    alone: RecoveryOutcome = recover(four_bits, recover_method="closed-form")
    outcome: RecoveryOutcome = recover(four_bits, recover_with=str(task), recover_learning_rate=3e-3)
    assert outcome.published and outcome.with_adapter is not None
    assert outcome.with_adapter.startswith("task@")
    assert outcome.before.mean_kl_nats.value != alone.before.mean_kl_nats.value
    assert outcome.folder is not None
    # What is published is the recovery alone: its rank is its own.
    assert json.loads((outcome.folder / "adapter_config.json").read_text())["r"] == 8
    by_name: RecoveryOutcome = recover(
        four_bits, recover_with="task", recover_learning_rate=3e-3, recover_name="again"
    )
    assert by_name.digest == outcome.digest


@pytest.fixture(scope="module")
def smoothed(
    original: ResolvedBase, recovery_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> ResolvedBase:
    """The original with scales moved from its norms into the layers that follow, then rounded to 4 bits."""
    folder = make_tiny_base(tmp_path_factory.mktemp("smoothed") / "tiny")
    tensors = load_file(folder / "model.safetensors")
    for layer in (0, 1):
        block = f"model.layers.{layer}"
        for norm, fed in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            scales = torch.exp(0.5 * torch.randn(128, generator=torch.Generator().manual_seed(layer)))
            tensors[f"{block}.{norm}.weight"] /= scales
            for name in fed:
                tensors[f"{block}.{name}.weight"] *= scales
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return resolve_base(str(quantise(folder, folder.parent / "w4", "W4A16")), home=recovery_home)


def test_moved_scales_are_not_taken_for_rounding(recover: Any, smoothed: ResolvedBase) -> None:
    outcome: RecoveryOutcome = recover(smoothed, recover_method="closed-form")
    assert outcome.published and outcome.recovered_share > 0.03


def test_a_task_adapter_is_refused_where_scales_were_moved(
    recover: Any, original: ResolvedBase, smoothed: ResolvedBase, tmp_path: Path
) -> None:
    passport = read_passport(original, home=tmp_path / "home")
    task = make_tiny_adapter(tmp_path / "task", linear_modules=passport.facts.linear_modules)
    with pytest.raises(RecoveryError, match=r"SmoothQuant.*task"):
        recover(smoothed, recover_with=str(task))


def test_a_task_adapter_of_another_base_is_refused(
    recover: Any, four_bits: ResolvedBase, tmp_path: Path
) -> None:
    other = {"model.layers.0.self_attn.q_proj": (64, 64)}
    task = make_tiny_adapter(tmp_path / "task", linear_modules=other)
    with pytest.raises(ExportError, match="servable"):
        recover(four_bits, recover_with=str(task))


def test_bases_that_do_not_belong_together_are_refused(
    recover: Any, four_bits: ResolvedBase, tmp_path: Path
) -> None:
    other = make_tiny_base(tmp_path / "other", hidden_size=64, heads=2, kv_heads=1)
    with pytest.raises(RecoveryError, match="layers differ"):
        recover(four_bits, resolve_base(str(other), home=tmp_path))


def test_one_held_out_row_is_too_few(
    four_bits: ResolvedBase, original: ResolvedBase, rows: list[list[int]], tmp_path: Path
) -> None:
    with pytest.raises(RecoveryError, match="held-out"):
        make_recovery(
            four_bits,
            original,
            rows=rows,
            held_out=rows[:1],
            settings=RecoverySettings(),
            home=tmp_path,
            progress=quiet,
        )
