from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterFileError
from adapters.probe import MAX_PROBE_BYTES, Probe, ProbeCase, parse_probe, read_probe, write_probe

CASE = {
    "prompt_token_ids": [1, 2],
    "expected_token_ids": [3],
    "adapter_logprobs": [-0.5],
    "base_logprobs": [-2.5],
}
PROBE = {"base_fingerprint": "f", "dtype": "float32", "tolerance": 0.01, "cases": [CASE]}

tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5)


@st.composite
def cases(draw) -> ProbeCase:
    expected = draw(tokens)
    logprobs = st.lists(
        st.floats(max_value=0, allow_nan=False, allow_infinity=False),
        min_size=len(expected),
        max_size=len(expected),
    )
    return ProbeCase(
        prompt_token_ids=draw(tokens),
        expected_token_ids=expected,
        adapter_logprobs=draw(logprobs),
        base_logprobs=draw(logprobs),
    )


@given(st.lists(cases(), min_size=1, max_size=4))
def test_a_probe_comes_back_as_it_was_written(tmp_path_factory, listed):
    folder = tmp_path_factory.mktemp("probe")
    probe = Probe(base_fingerprint="f", dtype="float32", tolerance=0.01, cases=listed)
    write_probe(folder, probe)
    assert read_probe(folder) == probe


def test_a_folder_without_a_probe_has_none(tmp_path):
    assert read_probe(tmp_path) is None


def test_an_overlong_probe_is_refused(tmp_path):
    (tmp_path / "hotswap_probe.json").write_text(" " * (MAX_PROBE_BYTES + 1))
    with pytest.raises(AdapterFileError, match="longer than"):
        read_probe(tmp_path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"tolerance": 0}, "tolerance"),
        ({"cases": []}, "cases"),
        ({"cases": [{**CASE, "prompt_token_ids": []}]}, "prompt_token_ids"),
        ({"cases": [{**CASE, "prompt_token_ids": [-1]}]}, "prompt_token_ids"),
        ({"cases": [{**CASE, "prompt_token_ids": [True]}]}, "prompt_token_ids"),
        ({"cases": [{**CASE, "prompt_token_ids": ["1"]}]}, "prompt_token_ids"),
        ({"cases": [{**CASE, "adapter_logprobs": [0.5]}]}, "adapter_logprobs"),
        ({"cases": [{**CASE, "base_logprobs": []}]}, "base_logprobs must have 1"),
        ({"cases": [CASE] * 65}, "cases"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_malformed_probe_is_refused_naming_the_field(change, field):
    assert parse_probe(json.dumps(PROBE).encode()).cases[0].expected_token_ids == [3]
    with pytest.raises(AdapterFileError, match=field):
        parse_probe(json.dumps(PROBE | change).encode())
