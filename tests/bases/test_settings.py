from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bases.settings import BasesSettings


def test_the_default_home_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("HOTSWAP_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert BasesSettings().home == tmp_path / ".cache" / "hotswap"


def test_the_environment_names_another_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "elsewhere"))
    assert BasesSettings().home == tmp_path / "elsewhere"


def test_a_relative_home_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert BasesSettings(home=Path("here")).home == tmp_path / "here"


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValidationError, match="hoem"):
        BasesSettings(hoem=Path("x"))  # type: ignore[call-arg]


def test_every_setting_says_what_it_is():
    assert all(field.description for field in BasesSettings.model_fields.values())
