"""One server of a comparison, and which ones can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.closed_loop.server import ServerSpec
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.wire import Dialect

# What `--peer` takes besides NAME=URL, and what each is.
KINDS: dict[str, str] = {
    "vllm": "the stock vLLM server with the engine settings that the gateway chooses",
    "vllm-mended": "the same with the gateway's mends of vLLM in its engine: what the gateway itself costs",
    "vllm-defaults": "the stock vLLM server out of the box",
    "tutorial": "a FastAPI handler around transformers' model.generate, as fine-tuning tutorials end",
    "llamacpp": "llama.cpp's server on the base's GGUF file as it is",
    "llamacpp-f32": "llama.cpp's server on that file with its weights in float32, as vLLM has them",
}
GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that takes part. It has an arm for each dialect that it is asked in."""

    spec: ServerSpec
    dialects: tuple[Dialect, ...]
    adapters: bool  # whether it serves the adapters that are asked for
    streams: bool = True
    notes: tuple[str, ...] = ()  # what a reader must know before comparing

    @property
    def name(self) -> str:
        """As in the report."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class PeerChoice:
    """One `--peer`: a kind that is started here, or, with `url`, a server that runs already."""

    name: str
    url: str | None = None


def parse_peers(texts: Sequence[str]) -> list[PeerChoice]:
    """`vllm`, `llamacpp`, ... or `NAME=URL`. Raises LoadOptionError."""
    found: list[PeerChoice] = []
    for text in texts:
        name, equals, url = text.partition("=")
        if equals:
            if not name or not url.startswith(("http://", "https://")):
                raise LoadOptionError(
                    f"--peer {text}: write NAME=http://HOST:PORT for a server that runs already"
                )
            found.append(PeerChoice(name, url))
        elif name in KINDS:
            found.append(PeerChoice(name))
        else:
            raise LoadOptionError(f"--peer {text!r} is none of {', '.join(KINDS)}, nor NAME=URL")
    names = [choice.name for choice in found]
    if not names:
        raise LoadOptionError(
            f"--peer names nobody to compare with; choose from {', '.join(KINDS)}, or NAME=URL"
        )
    twice = sorted({name for name in names if names.count(name) > 1} | {GATEWAY} & set(names))
    if twice:
        raise LoadOptionError(f"--peer {', '.join(twice)}: a name can be given once, and {GATEWAY} is ours")
    return found
