"""The text of a key."""

from __future__ import annotations

import hashlib
import re

import pytest

from serve.access.api_key import key_id_of, make_key


def test_a_key_is_256_random_bits_behind_an_id() -> None:
    keys = [make_key() for _ in range(100)]
    for key in keys:
        assert re.fullmatch(r"hsk_[0-9a-f]{16}_[0-9a-f]{64}", key.text)
        assert key.text.split("_")[1] == key.id == key_id_of(key.text.encode())
        assert key.digest == hashlib.sha256(key.text.encode()).hexdigest()
    assert len({key.id for key in keys}) == len({key.text[-64:] for key in keys}) == 100


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hsk_",
        b"hsk_0123456789abcdef",
        b"hsk_0123456789abcdef_" + b"0" * 63,
        b"hsk_0123456789abcdef_" + b"0" * 65,
        b"hsk_0123456789ABCDEF_" + b"0" * 64,
        b"hsk_0123456789abcdef_" + b"0" * 64 + b"\n",
        b"HSK_0123456789abcdef_" + b"0" * 64,
        b"\xff" * 85,
    ],
)
def test_another_text_has_no_id(text: bytes) -> None:
    assert key_id_of(text) == ""
