"""Who takes part: our gateway and the peers that were asked for, each ready to be started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.gateway import ServedBase, find_base, gateway_spec
from benchmarks.load.client.wire import Dialect
from benchmarks.load.errors import LoadOptionError, PeerUnavailableError
from benchmarks.load.peers.equal_settings import EqualSettings, equal_settings
from benchmarks.load.peers.llama_server import find_gguf, find_program, gguf_of, llama_peer
from benchmarks.load.peers.peer import GATEWAY, Peer, PeerChoice
from benchmarks.load.peers.tutorial import tutorial_peer
from benchmarks.load.peers.vllm_server import vllm_peer
from benchmarks.load.quant_bases import AUTO, parse_base
from benchmarks.server import ServerSpec
from benchmarks.versions import ALL_LINEAR, VersionMaker

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
    tools: Path | None = None  # where packages of peers are installed; None: in Hotswap's home


@dataclass(frozen=True, slots=True)
class Lineup:
    """Everybody, our gateway first, and what they are started with."""

    peers: tuple[Peer, ...]
    adapters: Mapping[str, Path]  # by the name that they are asked by
    settings: Mapping[str, str]  # of the engines, each with its reason


def make_lineup(
    choices: Sequence[PeerChoice],
    dialects: Sequence[Dialect],
    options: LineupOptions,
    folder: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
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
    chosen = [choice for choice in choices if choice.url is None]
    started = [choice.name for choice in chosen]
    if options.gateway_url is not None and not started:
        if options.adapters:
            raise LoadOptionError(
                "--random-adapters: servers that run already have the adapters that they have"
            )
        gateway = _running(GATEWAY, options.gateway_url, tuple(dialects))
        return Lineup((gateway, *running), {}, {})
    reference, dtype = parse_base(options.base)
    base = find_base(reference, folder)
    scripted = base.name == "scripted"
    if started and scripted:
        raise PeerUnavailableError(
            f"--base scripted has no weights, so that {', '.join(started)} cannot serve it; name a base, or "
            "compare with servers that run already (--peer NAME=URL)"
        )
    engines = sum(name.startswith(("vllm", GATEWAY)) for name in started) + (options.gateway_url is None)
    equal = None
    if not scripted:
        equal = equal_settings(
            base,
            kv_cache_gib=options.kv_cache_gib,
            engines=engines if options.together else 1,
            adapters=options.adapters,
            dtype=dtype,
        )
    adapters = _make_adapters(base, options.adapters, folder / "home" / "adapters")
    if options.gateway_url is not None:
        gateway = _running(GATEWAY, options.gateway_url, tuple(dialects))
    else:
        flags = _flags(equal, dtype) if equal is not None else ()
        spec = gateway_spec(folder / "home", base, flags)
        gateway = Peer(spec, tuple(dialects), adapters=True)
    others = []
    if equal is not None:
        cast = _Cast(equal, theirs, base, adapters, options, folder, say)
        others = [cast.start(choice) for choice in chosen]
    order = {choice.name: place for place, choice in enumerate(choices)}
    peers = sorted((*others, *running), key=lambda peer: order[peer.name])
    return Lineup((gateway, *peers), adapters, equal.notes if equal is not None else {})


@dataclass(frozen=True, slots=True)
class _Cast:
    """Makes the peers that are started here."""

    equal: EqualSettings
    dialect: Dialect
    base: ServedBase
    adapters: Mapping[str, Path]
    options: LineupOptions
    folder: Path
    say: Callable[[str], None]

    def start(self, choice: PeerChoice) -> Peer:
        """One of them. Raises PeerUnavailableError, BaseModelError."""
        if choice.base is not None:
            return self._gateway(choice.name, choice.base)
        if choice.name == "tutorial":
            return tutorial_peer(self.equal.base_path)
        if choice.name.startswith("vllm"):
            return vllm_peer(choice.name, self.equal, self.dialect, self.adapters)
        from serve.settings import load_settings

        gguf = find_gguf(self.options.gguf, self.base.name)
        tools = self.options.tools or load_settings().home / "benchmark-tools"
        return llama_peer(
            choice.name,
            self.equal,
            self.dialect,
            program=find_program(self.options.llama_server, tools, self.say),
            gguf=gguf_of(choice.name, gguf, self.folder / "gguf"),
            slots=self.options.slots,
        )

    def _gateway(self, name: str, wanted: str) -> Peer:
        reference, dtype = parse_base(wanted)
        folder = self.folder / name.replace("/", "-")
        served = find_base(reference, folder)
        spec = replace(
            gateway_spec(folder / "home", served, _flags(self.equal, dtype)),
            name=name,
            title=f"Hotswap's {name}",
        )
        return Peer(spec, (self.dialect,), adapters=False)


def _flags(equal: EqualSettings, dtype: str) -> tuple[str, ...]:
    return equal.flags if dtype == AUTO else (*equal.flags, f"--dtype={dtype}")


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
