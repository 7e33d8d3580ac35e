from __future__ import annotations

import json
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import SafetensorsHeaderError
from adapters.safetensors_header import MAX_HEADER_BYTES, parse_header
from tests.adapters.conftest import pack

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}
VALID = pack({"__metadata__": {"format": "pt"}, "a": A, "b": B}, bytes(32))


def parse(raw: bytes):
    return parse_header(raw, file_bytes=len(raw))


def test_a_valid_header_gives_positions_in_the_whole_file():
    entries = parse(VALID)
    assert {name: (e.dtype, e.shape, e.num_bytes) for name, e in entries.items()} == {
        "a": ("F32", (2, 3), 24),
        "b": ("BF16", (4,), 8),
    }
    assert entries["b"].end == len(VALID)
    assert entries["a"].start == len(VALID) - 32


def test_the_tensors_may_lie_in_any_order():
    raw = pack({"b": {**B, "data_offsets": [0, 8]}, "a": {**A, "data_offsets": [8, 32]}}, bytes(32))
    assert parse(raw)["a"].end == len(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "0 bytes"),
        (b"\0" * 7, "7 bytes"),
        ((2**63).to_bytes(8, "little") + b"{}", str(2**63)),
        ((2**64 - 1).to_bytes(8, "little"), str(2**64 - 1)),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", "at most"),
        ((100).to_bytes(8, "little") + b"{}", "cut off"),
        ((0).to_bytes(8, "little"), "header of 0 bytes"),
        ((3).to_bytes(8, "little") + b" {}", "start with"),
        ((2).to_bytes(8, "little") + b"[]", "start with"),
        (pack({}, b""), "no tensors"),
        (pack({"__metadata__": {"a": 1}, "a": A}, bytes(24)), "text to text"),
        (pack({"__metadata__": [], "a": A}, bytes(24)), "text to text"),
        (pack({"a": []}, b""), "exactly dtype"),
        (pack({"a": {**A, "extra": 1}}, bytes(24)), "exactly dtype"),
        (pack({"a": {**A, "shape": [2, True]}}, bytes(24)), "shape"),
        (pack({"a": {**A, "shape": 6}}, bytes(24)), "shape"),
        (pack({"a": {**A, "shape": [1] * 9}}, bytes(24)), "at most 8"),
        (pack({"a": {**A, "shape": [2, -3]}}, bytes(24)), "non-negative"),
        (pack({"a": {**A, "data_offsets": [0]}}, bytes(24)), "two integers"),
        (pack({"a": {**A, "data_offsets": [0, "24"]}}, bytes(24)), "two integers"),
        (pack({"a": {**A, "data_offsets": [24, 0]}}, bytes(24)), "needs 24"),
        (pack({"a": {**A, "shape": [2**60, 2**60]}}, bytes(24)), "needs"),
        (pack({"a": A}, bytes(23)), "cut off"),
        (pack({"a": A}, bytes(25)), "belong to no tensor"),
        (pack({"a": A, "b": A}, bytes(24)), "overlaps"),
        (pack({"a": A, "b": {**B, "data_offsets": [20, 28]}}, bytes(28)), "overlaps"),
        (pack({"a": A, "b": {**B, "data_offsets": [28, 36]}}, bytes(36)), "gap"),
        (pack({"": A}, bytes(24)), "0 characters"),
        (pack({"n" * 513: A}, bytes(24)), "513 characters"),
    ],
)
def test_a_broken_rule_is_refused_with_its_reason(raw, message):
    with pytest.raises(SafetensorsHeaderError, match=message) as caught:
        parse(raw)
    assert caught.value.reason == "layout"


def test_a_name_that_stands_twice_is_refused():
    head = b'{"a":%s,"a":%s}' % (json.dumps(A).encode(), json.dumps(A).encode())
    with pytest.raises(SafetensorsHeaderError, match="twice"):
        parse(len(head).to_bytes(8, "little") + head + bytes(24))


@pytest.mark.parametrize("dtype", ["F64", "I8", "F8_E4M3", "BOOL", "f32", ""])
def test_another_dtype_is_refused_as_such(dtype):
    with pytest.raises(SafetensorsHeaderError, match="dtype") as caught:
        parse(pack({"a": {**A, "dtype": dtype}}, bytes(24)))
    assert caught.value.reason == "dtype"


def test_messages_stay_short_and_printable_whatever_the_names_are():
    with pytest.raises(SafetensorsHeaderError) as caught:
        parse(pack({"evil\n\x1b[31m" + "x" * 500_000: A}, bytes(24)))
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_a_header_full_of_nothing_costs_little_memory():
    head = b'{"a":' + b"[" * (MAX_HEADER_BYTES - 6) + b"}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SafetensorsHeaderError):
        parse(len(head).to_bytes(8, "little") + head)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def outcome_is_a_header_or_its_error(raw: bytes) -> bool:
    """Parse; whatever is accepted, the real library must accept as well and read in the same way."""
    try:
        entries = parse(raw)
    except SafetensorsHeaderError as error:
        assert str(error)
        return False
    from safetensors import deserialize

    library = {name: (info["dtype"], tuple(info["shape"])) for name, info in deserialize(raw)}
    assert library == {name: (entry.dtype, entry.shape) for name, entry in entries.items()}
    return True


@given(st.binary(max_size=300))
def test_random_bytes_never_raise_another_error(raw):
    outcome_is_a_header_or_its_error(raw)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_random_headers_never_raise_another_error(body, length):
    outcome_is_a_header_or_its_error(length.to_bytes(8, "little") + body)


@given(st.integers(0, len(VALID) - 1))
def test_every_cut_off_file_is_refused(length):
    assert not outcome_is_a_header_or_its_error(VALID[:length])


@settings(max_examples=500)
@given(st.lists(st.integers(0, (len(VALID) - 32) * 8 - 1), min_size=1, max_size=4))
def test_flipped_bits_never_raise_another_error(positions):
    raw = bytearray(VALID)
    for position in positions:
        raw[position // 8] ^= 1 << position % 8
    outcome_is_a_header_or_its_error(bytes(raw))


numbers = st.integers(-1, 40) | st.sampled_from([2**31, 2**63, 2**64, 1.5, True, None, "4"])
infos = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", 3]),
        "shape": st.lists(numbers, max_size=3),
        "data_offsets": st.lists(numbers, min_size=1, max_size=3),
    }
)


@given(
    st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), infos, max_size=3), st.binary(max_size=48)
)
def test_plausible_headers_never_raise_another_error(header, data):
    outcome_is_a_header_or_its_error(pack(header, data))


@given(
    st.lists(
        st.tuples(st.sampled_from(["F32", "F16", "BF16"]), st.lists(st.integers(0, 4), max_size=3)),
        min_size=1,
        max_size=5,
    ),
    st.randoms(),
)
def test_every_well_formed_file_is_accepted(tensors, random):
    header, position = {}, 0
    for index, (dtype, shape) in enumerate(tensors):
        size = 4 if dtype == "F32" else 2
        for dimension in shape:
            size *= dimension
        header[f"t{index}"] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    shuffled = list(header.items())
    random.shuffle(shuffled)
    assert outcome_is_a_header_or_its_error(pack(dict(shuffled), bytes(position)))
