"""A gzip stream is unpacked in small pieces, whatever it is cut into, and a bomb is refused early."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import BodyTooLargeError, UploadRefusedError
from serve.lifecycle.gunzip import FREE_BYTES, MAX_RATIO, PIECE_BYTES, Gunzip

MIB = 2**20


def unpack(data: bytes, *, step: int = 1000, max_bytes: int = 64 * MIB) -> bytes:
    stream = Gunzip(max_bytes)
    pieces = [piece for at in range(0, len(data), step) for piece in stream.feed(data[at : at + step])]
    pieces += stream.finish()
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


@given(st.binary(max_size=5000), st.integers(min_value=1, max_value=6000))
def test_it_comes_out_as_it_went_in_however_it_is_cut(content: bytes, step: int) -> None:
    assert unpack(gzip.compress(content), step=step) == content


def test_large_content_comes_in_bounded_pieces() -> None:
    content = random.Random(0).randbytes(3 * MIB)
    assert unpack(gzip.compress(content, 1), step=MIB) == content
    text = b"words and words " * 40_000  # compresses well, and less than the free bytes
    assert unpack(gzip.compress(text)) == text


@pytest.mark.parametrize(
    "content", [b"no gzip at all", b"\x1f\x8b\x08 and then nonsense", zlib.compress(b"zlib")]
)
def test_what_is_no_gzip_is_refused(content: bytes) -> None:
    with pytest.raises(UploadRefusedError):
        unpack(content)


@pytest.mark.parametrize("cut", [0, 1, 5, 11, 40, -1, -8])
def test_a_stream_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(UploadRefusedError, match="cut off"):
        unpack(gzip.compress(random.Random(1).randbytes(200))[:cut])


def test_a_damaged_stream_is_refused() -> None:
    damaged = bytearray(gzip.compress(random.Random(1).randbytes(2000)))
    damaged[-6] ^= 1  # its checksum
    with pytest.raises(UploadRefusedError, match="damaged"):
        unpack(bytes(damaged))


@pytest.mark.parametrize("more", [b"\0", gzip.compress(b"another")], ids=["a byte", "a stream"])
def test_nothing_may_follow_the_stream(more: bytes) -> None:
    for step in (1, 10_000):
        with pytest.raises(UploadRefusedError, match="after its end"):
            unpack(gzip.compress(b"one") + more, step=step)


def test_a_bomb_is_refused_by_its_ratio_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(256 * MIB))
    assert len(bomb) < MIB
    stream, given_bytes = Gunzip(1024 * MIB), 0
    with pytest.raises(UploadRefusedError, match=f"more than {MAX_RATIO} times"):
        for at in range(0, len(bomb), 1000):
            for piece in stream.feed(bomb[at : at + 1000]):
                given_bytes += len(piece)
    assert given_bytes < FREE_BYTES + MAX_RATIO * 30_000


def test_a_stream_over_the_limit_is_refused() -> None:
    content = random.Random(0).randbytes(2 * MIB)
    with pytest.raises(BodyTooLargeError, match="--max-adapter-mib"):
        unpack(gzip.compress(content, 0), max_bytes=MIB)
