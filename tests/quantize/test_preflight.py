"""What is found before the long part, every problem at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import make_tiny_base
from quantize import preflight as preflight_module
from quantize.errors import PreflightError
from quantize.preflight import Preflight, check_run
from quantize.settings import load_quantize_settings


@pytest.fixture
def check(tmp_path: Path, tiny_original: Path) -> Callable[..., Preflight]:
    def run(folder: Path = tiny_original, **given: Any) -> Preflight:
        base = resolve_base(str(folder), home=tmp_path)
        return check_run(base, load_quantize_settings(**given), home=tmp_path)

    return run


@pytest.fixture(scope="module")
def odd_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hidden size 192, intermediate 384: 64 divides both, 128 does not."""
    return make_tiny_base(tmp_path_factory.mktemp("odd") / "odd", hidden_size=192, heads=6)


def test_the_default_group_size_divides_every_layer(check: Callable[..., Preflight], odd_base: Path) -> None:
    assert {layer.group_size for layer in check().plan.layers} == {128}
    assert {layer.group_size for layer in check(odd_base).plan.layers} == {64}


def test_a_group_size_that_divides_nothing_names_layers_and_sizes_that_would(
    check: Callable[..., Preflight], odd_base: Path
) -> None:
    with pytest.raises(PreflightError) as caught:
        check(odd_base, group_size=128)
    text = str(caught.value)
    assert "Group size 128 does not divide the inputs of model.layers.0.self_attn.q_proj (192)" in text
    assert "down_proj" not in text, "384 is a multiple of 128"
    assert text.endswith("64 or 32 would.")


def test_a_group_size_without_a_kernel_is_refused(check: Callable[..., Preflight]) -> None:
    with pytest.raises(PreflightError, match=r"Group size 16 has no kernel in vLLM; it has 32, 64, 128"):
        check(group_size=16)


def test_every_problem_is_listed_at_once(
    check: Callable[..., Preflight], odd_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "available_memory_bytes", lambda: 1024)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    out = tmp_path / "taken"
    out.mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(PreflightError) as caught:
        check(odd_base, group_size=128, out=out, data=["no-such.jsonl"])
    assert len(caught.value.problems) == 5
    for said in (
        "no-such.jsonl does not exist",
        "exists. Name another",
        "Group size 128",
        "of memory are needed",
        "of disk are needed",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scheme": "int8-w8a8", "group_size": 64}, "no groups: leave --group-size out"),
        ({"scheme": "int8-dynamic", "asymmetric": True}, "leave --asymmetric out"),
        ({"scheme": "awq-w4a16", "activation_order": "none"}, "leave --activation-order out"),
    ],
)
def test_an_option_that_a_scheme_does_not_have_is_refused(
    check: Callable[..., Preflight], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(PreflightError, match=said):
        check(**given)


def test_a_base_that_is_quantised_is_refused(
    check: Callable[..., Preflight], tiny_quantised: Callable[[str], Path]
) -> None:
    with pytest.raises(PreflightError, match=r"is quantised already \(compressed-tensors\)"):
        check(tiny_quantised("rtn-w4a16"))


def test_a_mixture_of_experts_is_refused(check: Callable[..., Preflight], tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "experts", architecture="deepseek_v3", layers=2)
    with pytest.raises(PreflightError, match=r"mixture of \d+ experts"):
        check(base)


def test_the_base_itself_is_never_the_output(
    check: Callable[..., Preflight], tiny_original: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_original, tmp_path / "mine"))
    for out in (base, tmp_path):
        with pytest.raises(PreflightError, match="is the base itself or holds it"):
            check(base, out=out, force=True)


def test_force_removes_no_folder_that_is_not_a_base(check: Callable[..., Preflight], tmp_path: Path) -> None:
    out = tmp_path / "letters"
    out.mkdir()
    (out / "dear.txt").write_text("x")
    with pytest.raises(PreflightError, match="is not a base: --force would remove"):
        check(out=out, force=True)


def test_what_stays_unquantised_is_told(check: Callable[..., Preflight]) -> None:
    notes = "\n".join(check().notes)
    assert "14 layers are rounded in groups of 128" in notes
    assert "lm_head and model.embed_tokens stay unquantised (one tensor: they are tied)" in notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{targets: [Linear, Embedding], scheme: W8A16}", "embeddings stay as they are"),
        ("{targets: ['re:.*nothing'], scheme: W8A16}", "rounds no linear layer"),
        (
            "{config_groups: {g: {targets: [Linear], weights: {num_bits: 4, strategy: group, group_size: 96}}}, "
            "ignore: [lm_head]}",
            "group size does not divide the inputs of",
        ),
    ],
)
def test_a_recipe_that_cannot_be_served_is_refused(
    check: Callable[..., Preflight], tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"some_stage:\n  quant_modifiers:\n    QuantizationModifier: {text}\n")
    with pytest.raises(PreflightError, match=said):
        check(recipe=path)


def test_a_resolved_base_is_all_it_takes(tiny_original: Path, tmp_path: Path) -> None:
    base = ResolvedBase("tiny", "tiny", tiny_original, None, "folder")
    found = check_run(base, load_quantize_settings(scheme="int8-dynamic"), home=tmp_path)
    assert found.out == tmp_path / "bases" / "made" / "tiny-int8-dynamic"
    assert not found.out.parent.exists(), "checking makes nothing"
