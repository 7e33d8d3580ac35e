"""Where Hotswap keeps what it makes: converted bases, passports, registries."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class BasesSettings(BaseSettings):
    """Settings of the bases room, from keyword arguments or the environment (`HOTSWAP_HOME`)."""

    model_config = SettingsConfigDict(env_prefix="HOTSWAP_", extra="forbid", frozen=True)

    home: Path = Field(
        default=Path("~/.cache/hotswap"),
        validate_default=True,
        description=(
            "Folder for everything Hotswap makes and may make again: the converted default base "
            "(about 540 MB) and the fingerprints of bases. Created when first needed. `~` is expanded."
        ),
    )

    @field_validator("home")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        # An absolute path stays right in engine processes that start in another working directory.
        return value.expanduser().absolute()
