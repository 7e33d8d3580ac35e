"""Command-line options come from the settings class and from nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from typer.testing import CliRunner

from bases.settings_options import with_options
from serve.settings import ServeSettings


class Sample(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SAMPLE_")

    name: str = Field("x", description="A name.")
    size: int | None = Field(None, description="A size in KiB.")
    share: float = Field(0.5, description="A share.")
    fast: bool = Field(True, description="Be fast.")
    kind: Literal["a", "b"] = Field("a", description="A kind.")
    level: Literal[1, 2] = Field(1, description="A level.")
    folder: Path | None = Field(None, description="A folder.")
    parts: tuple[str, ...] = Field((), description="Parts.")
    secret: SecretStr | None = Field(None, description="A secret.")


def run(*arguments: str, settings: type[BaseSettings] = Sample, **options: Any) -> Any:
    given: dict[str, Any] = {}

    def command(extra: int = 0, **values: Any) -> None:
        """Do it."""
        given.update(values, extra=extra)

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(with_options(settings, env_prefix="SAMPLE_", **options)(command))
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300", "TERM": "dumb"})
    return result, given


def test_what_is_not_given_stays_none_so_that_the_environment_keeps_its_say() -> None:
    result, given = run()
    assert result.exit_code == 0, result.output
    assert given.pop("extra") == 0
    assert set(given) == set(Sample.model_fields)
    assert set(given.values()) == {None}


def test_values_arrive_with_their_types() -> None:
    _, given = run(
        *("--name", "n", "--size", "3", "--share", "0.25", "--no-fast", "--kind", "b", "--level", "2"),
        *("--folder", "/srv", "--parts", "p", "--parts", "q", "--secret", "s", "--extra", "7"),
    )
    assert given == {
        "name": "n",
        "size": 3,
        "share": 0.25,
        "fast": False,
        "kind": "b",
        "level": 2,
        "folder": Path("/srv"),
        "parts": ["p", "q"],
        "secret": "s",
        "extra": 7,
    }


@pytest.fixture(scope="module")
def help_of_serve() -> str:
    """The help of all settings of the server, in one line."""
    result, _ = run("--help", settings=ServeSettings)
    return " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("name", sorted(ServeSettings.model_fields))
def test_every_setting_has_an_option_with_description_default_and_variable(
    name: str, help_of_serve: str
) -> None:
    text = help_of_serve
    field = ServeSettings.model_fields[name]
    assert "--" + name.replace("_", "-") in text
    assert f"[SAMPLE_{name.upper()}]" in text
    assert field.description is not None
    assert " ".join(field.description.split()) in text


def test_a_skipped_setting_has_no_option() -> None:
    result, _ = run("--help", skip=frozenset({"secret"}))
    assert "--secret" not in result.output


def test_a_setting_without_a_command_line_form_is_a_mistake_found_at_once() -> None:
    class Odd(BaseSettings):
        odd: dict[str, int] = {}

    with pytest.raises(TypeError, match="no command-line form"):
        with_options(Odd, env_prefix="ODD_")(lambda **_: None)
