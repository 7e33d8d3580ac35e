from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterNameError
from adapters.name import AdapterVersion, parse_alias, parse_reference

DIGEST = "3f2a91c0" + "0" * 56
aliases = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}x", fullmatch=True)


@pytest.mark.parametrize("text", ["risk", "a", "0", "risk-2.1_b", "a" * 64])
def test_a_plain_name_is_taken_as_it_is(text):
    assert parse_alias(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Risk",
        "a" * 65,
        "-a",
        ".a",
        "a b",
        "a/b",
        "../a",
        "a..b",
        "a\n",
        "a\0",
        "ris\u043a",
        "a%2e",
        "r" * 10_000,
    ],
)
def test_a_name_outside_the_rule_is_refused(text):
    with pytest.raises(AdapterNameError, match="not allowed"):
        parse_alias(text)


def test_the_message_escapes_and_cuts_what_was_given():
    with pytest.raises(AdapterNameError) as caught:
        parse_alias("bad\nname" + "x" * 10_000)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["base", "admin", "default"])
def test_reserved_words_are_refused(text):
    with pytest.raises(AdapterNameError, match="reserved"):
        parse_alias(text)


def test_the_name_of_the_base_is_refused():
    with pytest.raises(AdapterNameError, match="base model"):
        parse_alias("smollm2", base_name="SmolLM2")
    assert parse_alias("smollm2", base_name="other") == "smollm2"


def test_a_name_with_a_version_is_not_an_alias():
    with pytest.raises(AdapterNameError, match="'@'"):
        parse_alias("risk@3f2a91c0")


def test_a_version_is_written_with_eight_digits():
    assert str(AdapterVersion("risk", DIGEST)) == "risk@3f2a91c0"


@pytest.mark.parametrize("digest", ["", "3f2a91c0", DIGEST.upper(), DIGEST + "0", "g" * 64])
def test_a_version_needs_a_full_digest(digest):
    with pytest.raises(AdapterNameError):
        AdapterVersion("risk", digest)


@pytest.mark.parametrize(
    "text", ["risk@", "risk@3f2a91c", "risk@3F2A91C0", "risk@3f2a91c0@3f2a91c0", "@3f2a91c0"]
)
def test_a_malformed_reference_is_refused(text):
    with pytest.raises(AdapterNameError):
        parse_reference(text)


@given(aliases, st.from_regex(r"[0-9a-f]{64}", fullmatch=True))
def test_what_a_version_is_written_as_refers_to_it(name, digest):
    version = AdapterVersion(name, digest)
    reference = parse_reference(str(version))
    assert reference.matches(version)
    assert str(reference) == str(version)
    assert parse_reference(name).matches(version)
    other = AdapterVersion(name, ("0" if digest[0] != "0" else "1") + digest[1:])
    assert not reference.matches(other)
