"""Who takes part: our gateway and the peers that were asked for, each ready to be started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.closed_loop.server import ServerSpec
from benchmarks.load.errors import LoadOptionError, PeerUnavailableError
from benchmarks.load.peers.equal_settings import EqualSettings, equal_settings
from benchmarks.load.peers.gguf_float32 import write_float32
from benchmarks.load.peers.llama_server import find_gguf, find_program, llama_peer
from benchmarks.load.peers.peer import GATEWAY, Peer, PeerChoice
from benchmarks.load.peers.tutorial import tutorial_peer
from benchmarks.load.peers.vllm_server import vllm_peer
from benchmarks.load.wire import Dialect
from benchmarks.steady.gateway import ServedBase, find_base, gateway_spec
from benchmarks.steady.versions import ALL_LINEAR, VersionMaker

ADAPTER_RANK = 8


@dataclass(frozen=True, slots=True)
class LineupOptions:
    """What the command line says about the servers."""

    base: str
    kv_cache_gib: float
    adapters: int  # random ones, of rank 8 on all linear layers
    slots: int  # requests under way at once at most, for servers that must know
    together: bool  # all up at once
    gateway_url: str | None = None  # a gateway that runs already
    llama_server: Path | None = None
    gguf: Path | None = None


@dataclass(frozen=True, slots=True)
class Lineup:
    """Everybody, our gateway first, and what they are started with."""

    peers: tuple[Peer, ...]
    adapters: Mapping[str, Path]  # by the name that they are asked by
    settings: Mapping[str, str]  # of the engines, each with its reason


def make_lineup(
    choices: Sequence[PeerChoice], dialects: Sequence[Dialect], options: LineupOptions, folder: Path
) -> Lineup:
    """Find every program and file before anything starts; `dialects` are those that the gateway is asked in.

    Peers are asked in OpenAI's: the last of `dialects` that is, else `completions`. The gateway's home, adapters
    and converted files go into `folder`.
    Raises LoadOptionError, PeerUnavailableError, BaseModelError, SettingsError.
    """
    theirs: Dialect = next((one for one in reversed(dialects) if one != "generate"), "completions")
    if options.adapters and options.gateway_url is not None:
        raise LoadOptionError(
            "--random-adapters: they are loaded into servers that are started here, not with --url"
        )
    running = [_running(choice.name, choice.url, (theirs,)) for choice in choices if choice.url is not None]
    started = [choice.name for choice in choices if choice.url is None]
    if options.gateway_url is not None and not started:
        if options.adapters:
            raise LoadOptionError(
                "--random-adapters: servers that run already have the adapters that they have"
            )
        gateway = _running(GATEWAY, options.gateway_url, tuple(dialects))
        return Lineup((gateway, *running), {}, {})
    base = find_base(options.base, folder)
    scripted = base.name == "scripted"
    if started and scripted:
        raise PeerUnavailableError(
            f"--base scripted has no weights, so that {', '.join(started)} cannot serve it; name a base, or "
            "compare with servers that run already (--peer NAME=URL)"
        )
    engines = sum(name.startswith("vllm") for name in started) + (options.gateway_url is None)
    equal = None
    if not scripted:
        equal = equal_settings(
            base,
            kv_cache_gib=options.kv_cache_gib,
            engines=engines if options.together else 1,
            adapters=options.adapters,
        )
    adapters = _make_adapters(base, options.adapters, folder / "home" / "adapters")
    if options.gateway_url is not None:
        gateway = _running(GATEWAY, options.gateway_url, tuple(dialects))
    else:
        spec = gateway_spec(folder / "home", base, equal.flags if equal is not None else ())
        gateway = Peer(spec, tuple(dialects), adapters=True)
    others = []
    if equal is not None:
        others = [_start(name, equal, theirs, base, adapters, options, folder) for name in started]
    order = {choice.name: place for place, choice in enumerate(choices)}
    peers = sorted((*others, *running), key=lambda peer: order[peer.name])
    return Lineup((gateway, *peers), adapters, equal.notes if equal is not None else {})


def _start(
    name: str,
    equal: EqualSettings,
    dialect: Dialect,
    base: ServedBase,
    adapters: Mapping[str, Path],
    options: LineupOptions,
    folder: Path,
) -> Peer:
    if name == "tutorial":
        return tutorial_peer(equal.base_path)
    if name.startswith("vllm"):
        return vllm_peer(name, equal, dialect, adapters)
    program, gguf = find_program(options.llama_server), find_gguf(options.gguf, base.name)
    if name == "llamacpp-f32":
        gguf = write_float32(gguf, folder / f"{gguf.stem}-f32.gguf")
    return llama_peer(name, equal, dialect, program=program, gguf=gguf, slots=options.slots)


def _running(name: str, url: str, dialects: tuple[Dialect, ...]) -> Peer:
    ready = "/v1/models"
    spec = ServerSpec(name, f"a server that was running already at {url}", "", ready, url=url.rstrip("/"))
    note = f"{name}: it ran already, with settings of its own; its processor time is not known"
    return Peer(spec, dialects, adapters=False, notes=(note,))


def _make_adapters(base: ServedBase, count: int, root: Path) -> dict[str, Path]:
    has = {name.rpartition(".")[2] for name in base.linear_modules}
    targets = tuple(name for name in ALL_LINEAR if name in has)
    maker = VersionMaker(root, base.linear_modules, rank=ADAPTER_RANK, targets=targets)
    return {f"random-{n}": root / maker.make(f"random-{n}", seed=n) for n in range(count)}
