"""One server of a comparison, and which ones can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load.client.wire import Dialect
from benchmarks.load.errors import LoadOptionError
from benchmarks.server import ServerSpec

GATEWAY = "gateway"
LLAMA = "llamacpp"
# What `--peer` takes besides NAME=URL and gateway@BASE, and what each is.
KINDS: dict[str, str] = {
    "vllm": "the stock vLLM server with the engine settings that the gateway chooses",
    "vllm-mended": "the same with the gateway's mends of vLLM in its engine: what the gateway itself costs",
    "vllm-defaults": "the stock vLLM server out of the box",
    "tutorial": "a FastAPI handler around transformers' model.generate, as fine-tuning tutorials end",
    LLAMA: "llama.cpp's server on the base's GGUF file as it is",
    f"{LLAMA}-f32": "llama.cpp's server on that file with its weights in float32",
    f"{LLAMA}-bf16": "llama.cpp's server on that file with its weights in bfloat16",
    f"{LLAMA}-q8": "llama.cpp's server on that file with its weights in 8 bits (Q8_0)",
    f"{LLAMA}-q4": "llama.cpp's server on that file with its weights in 4 bits (Q4_0)",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that takes part. It has an arm for each dialect that it is asked in."""

    spec: ServerSpec
    dialects: tuple[Dialect, ...]
    adapters: bool  # whether it serves the adapters that are asked for
    streams: bool = True
    one_process: bool = False  # that answers HTTP and computes
    keeps_connections: bool = (
        True  # False: it hangs up after an answer, so that the next one needs a new connection
    )
    notes: tuple[str, ...] = ()  # what a reader must know before comparing

    @property
    def name(self) -> str:
        """As in the report."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class PeerChoice:
    """One `--peer`: a kind that is started here; with `url` a server that runs already; with `base` our gateway on
    another base, in `--bases`' form of `hotswap bench quant`."""

    name: str
    url: str | None = None
    base: str | None = None


def parse_peers(texts: Sequence[str]) -> list[PeerChoice]:
    """`vllm`, `llamacpp`, ..., `gateway@BASE` or `NAME=URL`. Raises LoadOptionError."""
    found: list[PeerChoice] = []
    for text in texts:
        if text.startswith(f"{GATEWAY}@") and (base := text.removeprefix(f"{GATEWAY}@")):
            found.append(PeerChoice(text, base=base))
            continue
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
            raise LoadOptionError(f"--peer {text!r} is none of {', '.join(KINDS)}, {GATEWAY}@BASE, NAME=URL")
    names = [choice.name for choice in found]
    if not names:
        raise LoadOptionError(
            f"--peer names nobody to compare with; choose from {', '.join(KINDS)}, {GATEWAY}@BASE, NAME=URL"
        )
    twice = sorted({name for name in names if names.count(name) > 1} | {GATEWAY} & set(names))
    if twice:
        raise LoadOptionError(f"--peer {', '.join(twice)}: a name can be given once, and {GATEWAY} is ours")
    return found
