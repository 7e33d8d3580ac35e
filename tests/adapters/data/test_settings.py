from __future__ import annotations

import pytest

from adapters.data.settings import DataSettings, load_data_settings
from adapters.errors import DataError


def test_maps_are_read_from_flags_and_from_the_environment(monkeypatch):
    given = load_data_settings(
        columns=["prompt=frage,completion=antwort", "label=stufe"], label_map=["hoch=5"]
    )
    assert given.column_map == {"prompt": "frage", "completion": "antwort", "label": "stufe"}
    assert given.label_mapping == {"hoch": "5"}
    monkeypatch.setenv("HOTSWAP_DATA_COLUMNS", "text=a")
    monkeypatch.setenv("HOTSWAP_DATA_NEAR_DUPLICATES", "simhash")
    assert load_data_settings(columns=[]).column_map == {"text": "a"}
    assert load_data_settings().near_duplicates == "simhash"
    assert load_data_settings(columns=["text=b"]).column_map == {"text": "b"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": ["prompt"]}, r"--columns: 'prompt' is not of the form `prompt=frage`"),
        ({"columns": ["frage=prompt"]}, r"--columns: 'frage' is no field; fields are messages"),
        ({"columns": ["text=a", "text=b"]}, "given twice, as 'a' and as 'b'"),
        ({"label_map": ["=x"]}, r"--label-map: '=x' is not of the form `hoch=5`"),
        ({"label_pattern": r"Risk: \d"}, "has 0 groups and needs one"),
        ({"label_pattern": r"(\d"}, "no regular expression"),
        ({"csv_delimiter": "ab"}, "--csv-delimiter: 'ab' is not one sign"),
        ({"validation_share": 0.6, "test_share": 0.4}, "leave nothing to train on"),
        ({"min_characters": 5, "max_characters": 4}, "--min-characters 5 is above --max-characters 4"),
        ({"personal": "maybe"}, "--personal: Input should be 'warn', 'redact' or 'off'"),
        ({"near_duplicate_threshold": 2}, "--near-duplicate-threshold: Input should be less than"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_their_flag(given, message):
    with pytest.raises(DataError, match=message):
        load_data_settings(**given)


@pytest.mark.parametrize("sign", ["tab", "\\t", "\t"])
def test_a_tab_can_be_written(sign):
    assert load_data_settings(csv_delimiter=sign).csv_delimiter == "\t"


def test_every_setting_is_described():
    assert all(info.description for info in DataSettings.model_fields.values())
