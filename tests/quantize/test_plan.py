"""Which layers a recipe rounds, and what a run needs."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bases.architecture import read_architecture
from quantize.needs import estimate_needs
from quantize.plan import GROUP_SIZES, default_group_size, make_plan
from quantize.recipe import recipe_of_scheme
from quantize.schemes.registry import SCHEMES
from quantize.schemes.scheme import SchemeOptions


@given(st.sets(st.integers(1, 64).map(lambda n: n * 16), min_size=1))
def test_the_default_group_size_is_the_largest_that_divides_all(widths: set[int]) -> None:
    chosen = default_group_size(widths)
    dividing = [size for size in GROUP_SIZES if not any(width % size for width in widths)]
    assert chosen == (max(dividing) if dividing else None)


def test_the_plan_and_the_disk_estimate_are_what_is_written(tiny_original: Path, tiny_quantised) -> None:
    options = SchemeOptions(64, True, "static", ("lm_head",), "torch.bfloat16")
    plan = make_plan(tiny_original, recipe_of_scheme(SCHEMES["gptq-w4a16"], options).modifiers())
    assert len(plan.layers) == 14
    assert plan.widest == 256
    assert plan.left_alone == ()
    assert plan.calibrated_passes == 1
    assert not plan.moves_scales
    facts = read_architecture(tiny_original)
    needs = estimate_needs(facts, plan, rows=16, row_tokens=64, store_bytes=2, resume=True)
    written = (tiny_quantised("gptq-w4a16") / "model.safetensors").stat().st_size
    assert written < needs.disk_bytes < written + 40 * 1024**2
    rounded = sum(layer.inputs * layer.outputs for layer in plan.layers)
    assert needs.kept_bytes == 4 * rounded


def test_a_scheme_without_calibration_keeps_no_layers(tiny_original: Path) -> None:
    options = SchemeOptions(None, True, "static", ("lm_head",), "torch.bfloat16")
    plan = make_plan(tiny_original, recipe_of_scheme(SCHEMES["int8-dynamic"], options).modifiers())
    needs = estimate_needs(
        read_architecture(tiny_original), plan, rows=16, row_tokens=64, store_bytes=2, resume=True
    )
    assert plan.rounds_inputs
    assert plan.calibrated_passes == needs.kept_bytes == 0
