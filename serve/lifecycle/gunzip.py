"""Unpacks a gzip stream while it arrives, and refuses one that is out to fill the disk or the processor."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from serve.errors import BodyTooLargeError, UploadRefusedError

PIECE_BYTES = 256 * 1024
# Weights hardly compress, and text perhaps tenfold; a bomb is a thousandfold.
MAX_RATIO = 50
FREE_BYTES = 1024 * 1024  # unpacked bytes before the ratio is looked at
_GZIP = 16 + zlib.MAX_WBITS


class Gunzip:
    """One gzip stream. Not thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: the most that may come out."""
        self._unpacker = zlib.decompressobj(_GZIP)
        self._max_bytes = max_bytes
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out of the next bytes, in pieces of at most PIECE_BYTES.

        Raises UploadRefusedError for what is no gzip stream, goes on after its end or is a bomb, and
        BodyTooLargeError.
        """
        self._taken += len(data)
        while data:
            if self._unpacker.eof:
                raise UploadRefusedError("the gzip stream goes on after its end; send one stream")
            try:
                piece = self._unpacker.decompress(data, PIECE_BYTES)
            except zlib.error:
                raise UploadRefusedError("the body is no gzip stream, or is damaged; send it again") from None
            self._given += len(piece)
            self._check()
            if piece:
                yield piece
            data = self._unpacker.unconsumed_tail or self._unpacker.unused_data

    def finish(self) -> Iterator[bytes]:
        """What was still held back, when no more bytes come. Raises UploadRefusedError when some are missing."""
        while not self._unpacker.eof:
            piece = self._unpacker.decompress(self._unpacker.unconsumed_tail, PIECE_BYTES)
            if not piece:
                raise UploadRefusedError("the gzip stream is cut off; send it again")
            self._given += len(piece)
            self._check()
            yield piece

    def _check(self) -> None:
        if self._given > self._max_bytes:
            raise BodyTooLargeError(
                f"the upload unpacks to more than {self._max_bytes} bytes, the largest adapter that is accepted "
                "(--max-adapter-mib)"
            )
        if self._given > FREE_BYTES + MAX_RATIO * self._taken:
            raise UploadRefusedError(
                f"the gzip stream unpacks to more than {MAX_RATIO} times its size, which no adapter does; send it "
                "without compression"
            )
