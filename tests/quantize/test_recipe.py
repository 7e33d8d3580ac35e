"""Recipes: from schemes, from files, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantize.errors import QuantizeSettingsError
from quantize.recipe import read_recipe, recipe_of_scheme
from quantize.schemes.registry import SCHEMES
from quantize.schemes.scheme import SchemeOptions

OPTIONS = st.builds(
    SchemeOptions,
    group_size=st.sampled_from([32, 64, 128]),
    symmetric=st.booleans(),
    activation_order=st.sampled_from(["static", "none"]),
    ignore=st.sampled_from([("lm_head",), ("lm_head", "re:.*down_proj")]),
    scale_dtype=st.sampled_from(["torch.bfloat16", "torch.float32"]),
)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(SCHEMES)), options=OPTIONS)
def test_a_saved_recipe_reads_as_the_same_recipe(name: str, options: SchemeOptions, tmp_path: Path) -> None:
    recipe = recipe_of_scheme(SCHEMES[name], options)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.text, encoding="utf-8")
    assert read_recipe(path).text == recipe.text
    assert [m.model_dump() for m in read_recipe(path).modifiers()] == [
        m.model_dump() for m in recipe.modifiers()
    ]


def test_no_activation_order_stays_none(tmp_path: Path) -> None:
    """GPTQModifier takes a missing `actorder` for `static`."""
    options = SchemeOptions(64, True, "none", ("lm_head",), "torch.bfloat16")
    recipe = recipe_of_scheme(SCHEMES["gptq-w4a16"], options)
    assert recipe.modifiers()[0].actorder is None
    assert "actorder: static" not in recipe.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "holds no YAML mapping"),
        ("a: [", "is not YAML"),
        ("some_stage:\n  quant_modifiers: {}\n", "names no modifier"),
        ("some_stage:\n  quant_modifiers:\n    NoModifier: {}\n", "does not take"),
        ("some_stage:\n  quant_modifiers:\n    GPTQModifier: {scheme: W4}\n", "does not take"),
        (
            "some_stage:\n  q_modifiers:\n    GPTQModifier: {scheme: W4A16, actorder: group}\n",
            "loads no more",
        ),
        ("some_stage:\n  q_modifiers:\n    SparseGPTModifier: {sparsity: 0.5}\n", "names SparseGPTModifier"),
    ],
)
def test_a_recipe_that_is_none_is_refused_in_one_message(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(QuantizeSettingsError, match=said):
        read_recipe(path)


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantizeSettingsError, match=r"mine\.yaml cannot be read"):
        read_recipe(tmp_path / "mine.yaml")
