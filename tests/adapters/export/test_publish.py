from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.config import CONFIG_NAME
from adapters.errors import AdapterNameError, ExportError
from adapters.export.publish import publish_adapter
from adapters.tiny import make_tiny_adapter
from tests.adapters.conftest import LINEAR_MODULES


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    folder = make_tiny_adapter(tmp_path / "finished", linear_modules=LINEAR_MODULES)
    (folder / "README.md").write_text("a card")
    (folder / "optimizer.pt").write_text("left behind by a trainer")
    return folder


def test_a_version_lies_under_its_name_and_digest(finished: Path, tmp_path: Path):
    place = publish_adapter(finished, home=tmp_path / "home", name="risk")
    assert place.parent == tmp_path / "home" / "adapters" / "risk"
    assert len(place.name) == 8
    assert {path.name for path in place.iterdir()} == {CONFIG_NAME, "adapter_model.safetensors", "README.md"}
    assert finished.is_dir()


def test_publishing_again_returns_what_is_there_untouched(finished: Path, tmp_path: Path):
    place = publish_adapter(finished, home=tmp_path / "home", name="risk")
    (place / "README.md").write_text("edited by hand")
    assert publish_adapter(finished, home=tmp_path / "home", name="risk") == place
    assert (place / "README.md").read_text() == "edited by hand"
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_another_adapter_in_its_place_is_not_overwritten(finished: Path, tmp_path: Path):
    place = publish_adapter(finished, home=tmp_path / "home", name="risk")
    values = json.loads((place / CONFIG_NAME).read_text())
    (place / CONFIG_NAME).write_text(json.dumps(values | {"lora_alpha": 99}))
    with pytest.raises(ExportError, match=r"holds another adapter .*nothing is overwritten"):
        publish_adapter(finished, home=tmp_path / "home", name="risk")
    assert json.loads((place / CONFIG_NAME).read_text())["lora_alpha"] == 99


def test_what_is_no_adapter_is_not_published(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"cannot be published: There is no adapter_config\.json"):
        publish_adapter(tmp_path / "empty", home=tmp_path / "home", name="risk")
    assert not (tmp_path / "home").exists()


def test_a_name_that_is_none_is_refused(finished: Path, tmp_path: Path):
    with pytest.raises(AdapterNameError):
        publish_adapter(finished, home=tmp_path / "home", name="../risk")


def test_a_folder_that_cannot_be_written_is_an_error_that_says_where_the_adapter_is(
    finished: Path, tmp_path: Path
):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ExportError, match=f"It is whole in {finished}"):
        publish_adapter(finished, home=tmp_path / "home", name="risk")
