"""An adapter as a tar, read strictly while it arrives.

Allowed: the four known files and README.md, flat, once each, as regular files. README.md is dropped. Everything
else that a tar can say (paths, links, devices, sparse files, pax and GNU extensions) is refused at the header
that says it, before a byte of its content is taken. The header itself is read by the standard library.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from adapters.artefact import MANIFEST_NAME, PROBE_NAME, WEIGHTS_NAME
from adapters.config import CONFIG_NAME, MAX_CONFIG_BYTES
from adapters.manifest import MAX_MANIFEST_BYTES
from adapters.probe import MAX_PROBE_BYTES
from serve.errors import BodyTooLargeError, UploadRefusedError

README_NAME = "README.md"
MAX_README_BYTES = 1024 * 1024
BLOCK_BYTES = tarfile.BLOCKSIZE
# Headers, padding and the zeros that tar programs fill their last record with.
MAX_FRAME_BYTES = 64 * 1024

_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGNAME: "a GNU long name",
    tarfile.GNUTYPE_LONGLINK: "a GNU long link",
    tarfile.XHDTYPE: "a pax header",
    tarfile.XGLTYPE: "a pax header",
    tarfile.SOLARIS_XHDTYPE: "a pax header",
}
_HOW = (
    "Make it with: tar --format=ustar -cf adapter.tar -C FOLDER adapter_config.json adapter_model.safetensors"
)


def file_limits(max_weights_bytes: int) -> dict[str, int]:
    """The largest size of each file that an upload may hold, in bytes."""
    return {
        CONFIG_NAME: MAX_CONFIG_BYTES,
        WEIGHTS_NAME: max_weights_bytes,
        MANIFEST_NAME: MAX_MANIFEST_BYTES,
        PROBE_NAME: MAX_PROBE_BYTES,
        README_NAME: MAX_README_BYTES,
    }


class AdapterTarReader:
    """Writes the files of one upload into `folder` as their bytes come. Not thread-safe; use it with `with`."""

    def __init__(self, folder: Path, limits: Mapping[str, int]) -> None:
        self._folder = folder
        self._limits = limits
        self._seen: set[str] = set()
        self._header = bytearray()
        self._name = ""
        self._file: BinaryIO | None = None  # None inside a file: its content is dropped
        self._content_left = 0
        self._padding_left = 0
        self._ended = False

    def __enter__(self) -> AdapterTarReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises UploadRefusedError, BodyTooLargeError, OSError."""
        view = memoryview(data)
        while view:
            if self._content_left:
                view = self._take_content(view)
            elif self._padding_left:
                taken = min(self._padding_left, len(view))
                self._padding_left -= taken
                view = view[taken:]
            elif self._ended:
                if any(view):
                    raise UploadRefusedError("the tar goes on after its end; send one tar")
                return
            else:
                taken = BLOCK_BYTES - len(self._header)
                self._header += view[:taken]
                view = view[taken:]
                if len(self._header) == BLOCK_BYTES:
                    block = bytes(self._header)
                    self._header.clear()
                    self._begin(block)

    def finish(self) -> None:
        """Say that no more bytes come. Raises UploadRefusedError when some are missing."""
        if self._content_left or self._padding_left:
            raise UploadRefusedError(
                f"the tar ends inside {self._name}: {self._content_left} bytes are missing; send it again",
                param=self._name,
            )
        if self._header or not self._seen:
            raise UploadRefusedError(f"the body is no complete tar. {_HOW}")

    def _take_content(self, view: memoryview) -> memoryview:
        taken = min(self._content_left, len(view))
        if self._file is not None:
            self._file.write(view[:taken])
        self._content_left -= taken
        if self._content_left == 0:
            self._end_file()
        return view[taken:]

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _begin(self, block: bytes) -> None:
        if not any(block):
            self._ended = True
            return
        try:
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError):
            gzip = (
                " It is compressed: send it with Content-Encoding: gzip."
                if block.startswith(b"\x1f\x8b")
                else ""
            )
            raise UploadRefusedError(f"the body is no tar.{gzip} {_HOW}") from None
        shown = ascii(entry.name[:80])
        if entry.type not in _REGULAR:
            kind = _KINDS.get(entry.type, f"an entry of type {entry.type!r}")
            raise UploadRefusedError(f"the tar holds {kind} ({shown}); only plain files are taken. {_HOW}")
        if entry.name not in self._limits:
            raise UploadRefusedError(
                f"the tar holds {shown}; taken are {', '.join(self._limits)}, without a folder before them. "
                f"{_HOW}"
            )
        if entry.name in self._seen:
            raise UploadRefusedError(f"the tar holds {entry.name} twice", param=entry.name)
        limit = self._limits[entry.name]
        if not 0 <= entry.size <= limit:
            raise BodyTooLargeError(
                f"{entry.name} has {entry.size} bytes; at most {limit} are taken", param=entry.name
            )
        self._seen.add(entry.name)
        self._name = entry.name
        self._content_left = entry.size
        self._padding_left = -entry.size % BLOCK_BYTES
        if entry.name != README_NAME:
            self._file = (self._folder / entry.name).open("xb")
        if entry.size == 0:
            self._end_file()


def tar_header(name: str, num_bytes: int) -> bytes:
    """The header of one file, in the form that `AdapterTarReader` takes."""
    entry = tarfile.TarInfo(name)
    entry.size = num_bytes
    entry.mode = 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT)


def tar_padding(num_bytes: int) -> bytes:
    """The zeros after a file of that size."""
    return bytes(-num_bytes % BLOCK_BYTES)


TAR_END = bytes(2 * BLOCK_BYTES)
