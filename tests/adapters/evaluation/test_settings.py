from __future__ import annotations

from pathlib import Path

import pytest

from adapters.errors import EvaluationError
from adapters.evaluation.settings import EvaluationSettings, load_evaluation_settings


def test_defaults_ask_the_default_base_through_transformers():
    settings = load_evaluation_settings()
    assert (settings.base, settings.adapter, settings.url) == ("default", None, None)
    assert settings.compare_base


def test_environment_and_flags_are_merged(monkeypatch):
    monkeypatch.setenv("HOTSWAP_EVAL_MAX_NEW_TOKENS", "9")
    monkeypatch.setenv("HOTSWAP_EVAL_LABELS", "low, high")
    settings = load_evaluation_settings(seed=3, adapter=None)
    assert (settings.max_new_tokens, settings.labels, settings.seed) == (9, ("low", "high"), 3)


def test_lists_may_be_repeated_or_separated_by_commas():
    settings = load_evaluation_settings(metrics=["bleu,rouge", "accuracy"], fail_under=["accuracy:0.95"])
    assert settings.metrics == ("bleu", "rouge", "accuracy")
    assert settings.thresholds == (("accuracy", 0.95),)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"label_pattern": "Risk: \\d"}, "0 groups"),
        ({"label_pattern": "(a)(b)"}, "2 groups"),
        ({"label_pattern": "(a"}, "--label-pattern: '(a' is no regular expression"),
        ({"labels": ["a", "a"]}, "names a label twice"),
        ({"fail_under": ["accuracy"]}, "not `metric:value`"),
        ({"report": Path("report.txt")}, "does not end in .html"),
        ({"compare_base": False}, "nobody to ask"),
        ({"max_new_tokens": 0}, "--max-new-tokens"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_with_their_name(given, part):
    with pytest.raises(EvaluationError, match="these settings cannot be used") as caught:
        load_evaluation_settings(**given)
    assert part in str(caught.value)


def test_every_setting_has_a_description():
    assert all(info.description for info in EvaluationSettings.model_fields.values())


def test_home_is_that_of_all_rooms_unless_given(monkeypatch, tmp_path):
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "all"))
    assert load_evaluation_settings().home_folder == tmp_path / "all"
    assert load_evaluation_settings(home=tmp_path / "own").home_folder == tmp_path / "own"
