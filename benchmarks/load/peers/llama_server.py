"""How llama.cpp's server is started: where its program is, and the base as a GGUF file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.closed_loop.server import ServerSpec
from benchmarks.load.errors import PeerUnavailableError
from benchmarks.load.peers.equal_settings import EqualSettings
from benchmarks.load.peers.peer import KINDS, Peer
from benchmarks.load.wire import Dialect

PROGRAM = "llama-server"


def llama_peer(
    kind: str, equal: EqualSettings, dialect: Dialect, *, program: Path, gguf: Path, slots: int
) -> Peer:
    """`llamacpp` or `llamacpp-f32`, which differ in `gguf`. `slots` requests are answered at once at most.

    All slots share one KV cache of as many tokens as the gateway's; prompts are not kept beyond it.
    """
    command = (
        *(str(program), "--model", str(gguf), "--alias", kind, "--host", "127.0.0.1", "--port", "{port}"),
        *("--threads", str(equal.cores), "--threads-batch", str(equal.cores)),
        *("--parallel", str(slots), "--kv-unified", "--cache-ram", "0", "--no-webui"),
        *(("--ctx-size", str(equal.kv_cache_tokens)) if equal.kv_cache_tokens else ()),
    )
    spec = ServerSpec(kind, KINDS[kind], "", "/health", command, dict(os.environ))
    note = f"{kind}: weights of {gguf.name}, which llama.cpp computes with in that format; asked for the base alone"
    return Peer(spec, (dialect,), adapters=False, notes=(note,))


def find_program(given: Path | None) -> Path:
    """`--llama-server`, or the one on PATH. Raises PeerUnavailableError."""
    found = shutil.which(str(given) if given is not None else PROGRAM)
    if found is None:
        where = f"{given} is no program" if given is not None else f"{PROGRAM} is not on PATH"
        raise PeerUnavailableError(
            f"--peer llamacpp: {where}; build it (https://github.com/ggml-org/llama.cpp, target llama-server) and "
            "name it with --llama-server PATH"
        )
    return Path(found).absolute()


def find_gguf(given: Path | None, base: str) -> Path:
    """`--gguf`, or the file that the default base came in. Raises PeerUnavailableError."""
    from bases.embedded import EMBEDDED_NAME, find_embedded_gguf

    if given is not None:
        if not given.is_file():
            raise PeerUnavailableError(f"--gguf {given}: there is no such file")
        return given.absolute()
    if base != EMBEDDED_NAME:
        raise PeerUnavailableError(
            f"--peer llamacpp: {base} is no GGUF file; convert it (llama.cpp's convert_hf_to_gguf.py) and name it "
            "with --gguf FILE"
        )
    return find_embedded_gguf()
