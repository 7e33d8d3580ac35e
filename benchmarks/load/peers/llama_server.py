"""How llama.cpp's server is started: where its program is, and the base as a GGUF file."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import ToolInstallError
from benchmarks.load.client.wire import Dialect
from benchmarks.load.errors import PeerUnavailableError
from benchmarks.load.peers import llama_service
from benchmarks.load.peers.equal_settings import EqualSettings
from benchmarks.load.peers.gguf_copy import FORMATS, write_copy
from benchmarks.load.peers.peer import KINDS, LLAMA, Peer
from benchmarks.server import ServerSpec
from benchmarks.tool_command import clean_environment, output_of
from benchmarks.tool_environment import tool_environment

PROGRAM = "llama-server"
# Wheels with llama.cpp's server, built for any x86-64 processor with AVX2.
PACKAGE = "xllamacpp==2026.10.11549"
_BUILD_SECONDS = 60.0
_FEATURE = re.compile(r"(\w+) = 1\b")


@dataclass(frozen=True, slots=True)
class LlamaProgram:
    """What goes before the server's flags, and what is known of how it was built, in words."""

    command: tuple[str, ...]
    build: str


def llama_peer(
    kind: str, equal: EqualSettings, dialect: Dialect, *, program: LlamaProgram, gguf: Path, slots: int
) -> Peer:
    """One of llama.cpp's kinds, which differ in `gguf`. `slots` requests are answered at once at most.

    All slots share one KV cache of as many tokens as the gateway's; prompts are not kept beyond it.
    """
    command = (
        *program.command,
        *("--model", str(gguf), "--alias", kind, "--host", "127.0.0.1", "--port", "{port}"),
        *("--threads", str(equal.cores), "--threads-batch", str(equal.cores)),
        *("--parallel", str(slots), "--kv-unified", "--cache-ram", "0", "--no-webui", "--metrics"),
        *(("--ctx-size", str(equal.kv_cache_tokens)) if equal.kv_cache_tokens else ()),
    )
    spec = ServerSpec(kind, KINDS[kind], "", "/health", command, clean_environment())
    form = FORMATS.get(kind.removeprefix(f"{LLAMA}-"), "weights as they are")
    note = f"{kind}: {gguf.name}, {form}; KV cache in float16; asked for the base alone; {program.build}"
    # It says that it keeps connections open, and closes them after a streamed answer all the same.
    return Peer(spec, (dialect,), adapters=False, one_process=True, keeps_connections=False, notes=(note,))


def find_program(given: Path | None, tools: Path, say: Callable[[str], None]) -> LlamaProgram:
    """`--llama-server`, else the one on PATH, else a package that is installed below `tools`, once.

    Raises PeerUnavailableError.
    """
    found = shutil.which(str(given) if given is not None else PROGRAM)
    if found is not None:
        return LlamaProgram((str(Path(found).absolute()),), f"{found}, built for what its builder chose")
    if given is not None:
        raise PeerUnavailableError(f"--llama-server: {given} is no program")
    try:
        programs = tool_environment(tools, PACKAGE, needs_torch=False, say=say)
    except ToolInstallError as error:
        raise PeerUnavailableError(
            f"--peer {LLAMA}: {PROGRAM} is not on PATH, and the package with it cannot be had: {error}\n"
            "Build it (https://github.com/ggml-org/llama.cpp, target llama-server) and name it with "
            "--llama-server PATH"
        ) from None
    command = (str(programs / "python"), str(Path(llama_service.__file__).absolute()))
    return LlamaProgram(command, f"{PACKAGE}, built for {features(command)}")


def find_gguf(given: Path | None, base: str) -> Path:
    """`--gguf`, or the file that the default base came in. Raises PeerUnavailableError."""
    from bases.embedded import EMBEDDED_NAME, find_embedded_gguf

    if given is not None:
        if not given.is_file():
            raise PeerUnavailableError(f"--gguf {given}: there is no such file")
        return given.absolute()
    if base != EMBEDDED_NAME:
        raise PeerUnavailableError(
            f"--peer {LLAMA}: {base} is no GGUF file; convert it (llama.cpp's convert_hf_to_gguf.py) and name it "
            "with --gguf FILE"
        )
    return find_embedded_gguf()


def gguf_of(kind: str, gguf: Path, folder: Path) -> Path:
    """The file that `kind` serves: `gguf`, or a copy of it in `folder`. Raises PeerUnavailableError."""
    number_format = kind.removeprefix(f"{LLAMA}-")
    if number_format not in FORMATS:
        return gguf
    folder.mkdir(parents=True, exist_ok=True)
    return write_copy(gguf, folder / f"{gguf.stem}-{number_format}.gguf", number_format)


@functools.cache
def features(command: tuple[str, ...]) -> str:
    """The processor features that it was built for, as it says itself."""
    said = output_of(
        [*command, "--build"],
        timeout_seconds=_BUILD_SECONDS,
        error=lambda reason: PeerUnavailableError(f"{PACKAGE} {reason}"),
    )
    return " ".join(_FEATURE.findall(said)) or "this processor"
