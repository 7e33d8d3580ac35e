"""The tar reader: what tar programs write comes through whole, everything else stops at its header."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.artefact import KNOWN_NAMES, MANIFEST_NAME, PROBE_NAME, WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from serve.errors import BodyTooLargeError, UploadRefusedError
from serve.lifecycle.adapter_tar import (
    BLOCK_BYTES,
    TAR_END,
    AdapterTarReader,
    file_limits,
    tar_header,
    tar_padding,
)

LIMIT = 4096
FILES = {CONFIG_NAME: b"{}", WEIGHTS_NAME: b"w" * 1000, MANIFEST_NAME: b"", PROBE_NAME: b"p" * BLOCK_BYTES}


def tar_of(*entries: tuple[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w", format=format) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return into.getvalue()


def special(kind: bytes, name: str = CONFIG_NAME, **fields: object) -> bytes:
    """A tar with one entry of another type than a file."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + TAR_END


def read(folder: Path, *pieces: bytes) -> None:
    with AdapterTarReader(folder, file_limits(LIMIT)) as reader:
        for piece in pieces:
            reader.feed(piece)
        reader.finish()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_come_out_as_they_went_in(tmp_path: Path, format: int) -> None:
    read(tmp_path, tar_of(*FILES.items(), format=format))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES


def test_a_readme_is_taken_and_dropped(tmp_path: Path) -> None:
    read(tmp_path, tar_of(("README.md", b"# card"), (CONFIG_NAME, b"{}")))
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_NAME]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.dictionaries(st.sampled_from(KNOWN_NAMES), st.binary(max_size=1500), min_size=1),
    cuts=st.lists(st.integers(0, 8000), max_size=6),
)
def test_it_does_not_matter_where_the_bytes_are_cut(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("upload")
    body = b"".join(
        tar_header(name, len(content)) + content + tar_padding(len(content))
        for name, content in contents.items()
    )
    body += TAR_END
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    read(folder, *(body[start:end] for start, end in itertools.pairwise(places)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


BAD_NAMES = [
    "../adapter_config.json",
    "/etc/passwd",
    "./adapter_config.json",
    "risk/adapter_config.json",
    "adapter_config.json/",
    "adapter_model.bin",
    "ADAPTER_CONFIG.JSON",
    "",
    "adapter_config.json\n",
    "\u202eadapter_config.json",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_another_name_is_refused_before_its_content(tmp_path: Path, name: str) -> None:
    with pytest.raises(UploadRefusedError):
        read(tmp_path, tar_of((CONFIG_NAME, b"{}"), (name, b"x")))
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_NAME]


SPECIAL = {
    "a symbolic link": special(tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": special(tarfile.LNKTYPE, linkname=WEIGHTS_NAME),
    "a character device": special(tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a block device": special(tarfile.BLKTYPE, devmajor=8),
    "a named pipe": special(tarfile.FIFOTYPE),
    "a folder": special(tarfile.DIRTYPE),
    "a contiguous file": special(tarfile.CONTTYPE),
    "a sparse file": special(tarfile.GNUTYPE_SPARSE),
    "a GNU long name": special(tarfile.GNUTYPE_LONGNAME, name="././@LongLink"),
    "a pax header": special(tarfile.XHDTYPE),
    "a global pax header": special(tarfile.XGLTYPE),
    "a pax header that renames": tar_of(("x" * 200, b"x"), format=tarfile.PAX_FORMAT),
    "an unknown type": special(b"Z"),
}


@pytest.mark.parametrize("case", SPECIAL)
def test_only_plain_files_are_taken(tmp_path: Path, case: str) -> None:
    with pytest.raises(UploadRefusedError):
        read(tmp_path, SPECIAL[case])
    assert list(tmp_path.iterdir()) == []


def checksummed(change: Callable[[bytearray], None]) -> bytes:
    """A header that was changed, with a checksum that fits."""
    block = bytearray(tar_header(CONFIG_NAME, 2))
    change(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def size_field(value: bytes) -> Callable[[bytearray], None]:
    def change(block: bytearray) -> None:
        block[124:136] = value

    return change


def test_a_size_beyond_the_limit_is_refused_at_the_header(tmp_path: Path) -> None:
    for size in (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7):
        with pytest.raises(BodyTooLargeError):
            read(tmp_path, checksummed(size_field(size)))
    with pytest.raises(BodyTooLargeError):
        read(tmp_path, tar_header(WEIGHTS_NAME, LIMIT + 1))
    assert list(tmp_path.iterdir()) == []


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises((BodyTooLargeError, UploadRefusedError)):
        read(tmp_path, checksummed(size_field(b"\xff" * 12)))
    with pytest.raises(UploadRefusedError):
        read(tmp_path, checksummed(size_field(b"not a size!!")))


def test_a_file_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UploadRefusedError, match="twice"):
        read(tmp_path, tar_of((CONFIG_NAME, b"{}"), (CONFIG_NAME, b"[]")))
    with pytest.raises(UploadRefusedError, match="twice"):
        read(tmp_path, tar_of(("README.md", b"a"), ("README.md", b"b")))


@pytest.mark.parametrize("kept", [1, 100, BLOCK_BYTES - 1, BLOCK_BYTES + 1, BLOCK_BYTES + 999])
def test_a_tar_that_is_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    with pytest.raises(UploadRefusedError):
        read(tmp_path, tar_of((WEIGHTS_NAME, b"w" * 1000))[:kept])


@pytest.mark.parametrize(
    "body",
    [b"", bytes(512), TAR_END, b"x" * 512, b"\x1f\x8b" + bytes(600), b'{"name": "risk"}'],
    ids=["nothing", "a zero block", "an empty tar", "text", "gzip", "JSON"],
)
def test_what_is_no_tar_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(UploadRefusedError):
        read(tmp_path, body)


def test_bytes_after_the_end_are_refused_and_zeros_are_not(tmp_path: Path) -> None:
    whole = tar_of((CONFIG_NAME, b"{}"))
    read(tmp_path, whole + bytes(20 * BLOCK_BYTES))
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UploadRefusedError, match="after its end"):
        read(other, whole + whole)


def test_a_changed_header_is_refused(tmp_path: Path) -> None:
    body = bytearray(tar_of((CONFIG_NAME, b"{}")))
    body[0] ^= 1
    with pytest.raises(UploadRefusedError, match="no tar"):
        read(tmp_path, bytes(body))


def test_a_file_is_closed_when_the_rest_never_comes(tmp_path: Path) -> None:
    with AdapterTarReader(tmp_path, file_limits(LIMIT)) as reader:
        reader.feed(tar_of((WEIGHTS_NAME, b"w" * 1000))[: BLOCK_BYTES + 10])
    # An open file would be a ResourceWarning, and so an error.
