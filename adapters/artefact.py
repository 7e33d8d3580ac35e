"""An adapter's folder, opened once and safely: what is read later is what was opened now.

Looked at: `adapter_config.json`, `adapter_model.safetensors`, and what our trainer adds, `hotswap.json` and
`hotswap_probe.json`. PEFT leaves more in such a folder (README.md, tokenizer files, training_args.bin,
optimizer.pt): that is named in the report, never opened and never copied. So a stray pickle does no harm,
while a folder whose only weights are a pickle is refused.

Each file is opened relative to the folder without following links, and must be a regular file with one name:
a symbolic link can point anywhere, and a hard link can be another tenant's file or be changed through its
other name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from adapters.config import CONFIG_NAME
from adapters.errors import AdapterFileError
from adapters.report import Findings, Problem
from adapters.safetensors_header import LENGTH_BYTES, TensorEntry, parse_header, read_header_length

WEIGHTS_NAME = "adapter_model.safetensors"
MANIFEST_NAME = "hotswap.json"
PROBE_NAME = "hotswap_probe.json"
KNOWN_NAMES = (CONFIG_NAME, WEIGHTS_NAME, MANIFEST_NAME, PROBE_NAME)

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
MAX_IGNORED_NAMES = 20
MAX_LISTED_ENTRIES = 10_000
CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """One opened file. Its size is that at opening; a file that shrinks while it is read is an error."""

    name: str
    num_bytes: int
    _descriptor: int

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`; raise AdapterFileError when they cannot be read."""
        return b"".join(bytes(chunk) for chunk in self.chunks(start, end))

    def read_all(self, *, max_bytes: int) -> bytes:
        """The whole file; raise AdapterFileError when it is longer than `max_bytes`."""
        if self.num_bytes > max_bytes:
            raise AdapterFileError(
                f"{self.name} has {self.num_bytes} bytes; at most {max_bytes} are read. "
                "It is not what PEFT or the trainer writes."
            )
        return self.read(0, self.num_bytes)

    def chunks(self, start: int, end: int) -> Iterator[memoryview]:
        """The bytes from `start` up to `end` in pieces of whole 4-byte words; one buffer is reused."""
        buffer = memoryview(bytearray(min(CHUNK_BYTES, max(end - start, 0))))
        position = start
        while position < end:
            chunk = buffer[: min(len(buffer), end - position)]
            self._fill(chunk, position)
            yield chunk
            position += len(chunk)

    def _fill(self, chunk: memoryview, position: int) -> None:
        filled = 0
        while filled < len(chunk):
            try:
                count = os.preadv(self._descriptor, [chunk[filled:]], position + filled)
            except OSError as error:
                raise AdapterFileError(f"{self.name} cannot be read: {error.strerror}.") from error
            if count == 0:
                raise AdapterFileError(
                    f"{self.name} was {self.num_bytes} bytes long and became shorter while it was read. "
                    "Try again when nothing writes to the folder."
                )
            filled += count


class AdapterArtefact:
    """The opened folder: its known files, the names of the others, and what was wrong with opening them."""

    def __init__(
        self, files: Mapping[str, AdapterFile], other_names: tuple[str, ...], problems: tuple[Problem, ...]
    ) -> None:
        self.files = files
        self.other_names = other_names
        self.problems = problems

    @property
    def ignored_names(self) -> tuple[str, ...]:
        """The first names in the folder that are not looked at, fit to print, and how many more there are."""
        shown = tuple(ascii(name)[1:-1][:80] for name in self.other_names[:MAX_IGNORED_NAMES])
        more = len(self.other_names) - len(shown)
        return (*shown, f"and {more} more") if more else shown

    def close(self) -> None:
        """Close the files. Calling it again does nothing."""
        files, self.files = self.files, {}
        for file in files.values():
            os.close(file._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_artefact(folder: Path) -> AdapterArtefact:
    """Open the adapter in `folder`. Never raises for what lies there: see `problems`. Use it with `with`."""
    findings = Findings()
    files: dict[str, AdapterFile] = {}
    others: list[str] = []
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is not a path"
        findings.add(
            "not_a_folder", f"The adapter's folder cannot be opened: {reason}. Give a PEFT output folder."
        )
        return AdapterArtefact(files, (), findings.listed())
    try:
        with os.scandir(descriptor) as entries:
            for _, entry in zip(range(MAX_LISTED_ENTRIES), entries, strict=False):
                if entry.name not in KNOWN_NAMES:
                    others.append(entry.name)
        for name in KNOWN_NAMES:
            file = _open_file(descriptor, name, findings)
            if file is not None:
                files[name] = file
    finally:
        os.close(descriptor)
    others.sort()
    present = {*files, *(problem.subject for problem in findings.listed())}
    if CONFIG_NAME not in present:
        findings.add(
            "config_missing",
            f"There is no {CONFIG_NAME}. Give the folder that PEFT's save_pretrained wrote.",
            CONFIG_NAME,
        )
    if WEIGHTS_NAME not in present:
        _explain_missing_weights(others, findings)
    return AdapterArtefact(files, tuple(others), findings.listed())


def read_weights_header(weights: AdapterFile) -> dict[str, TensorEntry]:
    """The tensors of the opened weights file; raise AdapterFileError when it is not a valid one."""
    prefix = weights.read(0, min(LENGTH_BYTES, weights.num_bytes))
    length = read_header_length(prefix, file_bytes=weights.num_bytes)
    return parse_header(weights.read(0, LENGTH_BYTES + length), file_bytes=weights.num_bytes)


def _open_file(folder_descriptor: int, name: str, findings: Findings) -> AdapterFile | None:
    # O_NONBLOCK: opening a named pipe must not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder_descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            findings.add(
                "unsafe_file", f"{name} is a symbolic link. Copy the adapter with its files: cp -rL.", name
            )
        elif error.errno in (errno.ENXIO, errno.ENODEV):
            findings.add("unsafe_file", f"{name} is a device or a socket, not a file.", name)
        else:
            findings.add("unreadable", f"{name} cannot be opened: {error.strerror}.", name)
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return AdapterFile(name, status.st_size, descriptor)
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        findings.add("unsafe_file", f"{name} is not a regular file.", name)
    else:
        findings.add(
            "unsafe_file",
            f"{name} has {status.st_nlink} names (hard links) and could change under another. "
            "Copy the adapter: cp -r.",
            name,
        )
    return None


def _explain_missing_weights(others: list[str], findings: Findings) -> None:
    pickles = [name for name in others if name.startswith("adapter_model") and name.endswith(PICKLE_SUFFIXES)]
    if pickles:
        findings.add(
            "weights_pickle_only",
            f"The weights are a pickle ({pickles[0][:80]!a}), which can run code when it is opened. "
            f"Save them as {WEIGHTS_NAME}: save_pretrained(folder, safe_serialization=True).",
            pickles[0],
        )
    elif any(name.startswith("adapter_model") and ".safetensors" in name for name in others):
        findings.add(
            "weights_sharded",
            f"The weights are split over several files; the engine reads {WEIGHTS_NAME} alone. "
            "Save them again as one file.",
            WEIGHTS_NAME,
        )
    else:
        findings.add(
            "weights_missing",
            f"There is no {WEIGHTS_NAME}. Give the folder that PEFT's save_pretrained wrote.",
            WEIGHTS_NAME,
        )
