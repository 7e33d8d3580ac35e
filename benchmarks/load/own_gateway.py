"""A gateway started for one measurement: a home in a folder, a base, and adapters made of random numbers."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.gateway import ServedBase, find_base, gateway_spec
from benchmarks.load.errors import LoadOptionError
from benchmarks.server import Server, running
from benchmarks.sigterm import ending_on_sigterm
from benchmarks.versions import ALL_LINEAR, VersionMaker
from serve.client import GatewayClient
from serve.settings import ServeSettings

MAX_ADAPTERS = 10_000
_RANK_FLAG = "--max-lora-rank"


@dataclass(frozen=True, slots=True)
class OwnGateway:
    """One that is up; it ends with the block that started it."""

    url: str
    base: ServedBase
    adapters: tuple[str, ...]  # all live
    ranks: tuple[int, ...]  # of each
    folder: Path  # its log and its home
    maker: VersionMaker  # writes more adapters where the gateway may load them from
    server: Server
    flags: tuple[str, ...]  # of `hotswap serve`, beside the base's

    @property
    def told(self) -> str:
        """For a report: how it was started, and with what."""
        command = " ".join(("hotswap serve --base", self.base.name, *self.flags))
        ranks = ", ".join(str(rank) for rank in sorted(set(self.ranks)))
        adapters = f"{len(self.adapters)} of rank {ranks}, made of random numbers" if ranks else "none"
        return f"A gateway of its own: {command}. Its adapters: {adapters}."

    def process_ids(self) -> list[int]:
        """Of all its processes; the first is the HTTP one."""
        return self.server.process_ids()


@contextlib.contextmanager
def own_gateway(
    base: str = "default",
    *,
    adapters: int = 0,
    ranks: Sequence[int] = (8,),
    targets: Sequence[str] = ALL_LINEAR,
    more_flags: Sequence[str] = (),
    folder: Path | None = None,
    ready_seconds: float = 900.0,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[OwnGateway]:
    """Start `hotswap serve` on a free port and load `adapters` adapters called adapter-0, adapter-1 and so on.

    `base` is as for `hotswap serve`, "tiny" (a random one) or "scripted" (the engine without a model). Ranks are
    dealt in turn. `more_flags` are of `hotswap serve`. `folder` is kept; without one a temporary folder goes with
    the gateway. SIGTERM ends it like Ctrl-C meanwhile.
    Raises LoadOptionError, BaseNotFoundError, BaseInvalidError, ServerStartError, GatewayRefusedError.
    """
    ranks = check_ranks(ranks)
    if not 0 <= adapters <= MAX_ADAPTERS:
        raise LoadOptionError(f"{adapters} adapters are not between 0 and {MAX_ADAPTERS}")
    names = tuple(f"adapter-{number}" for number in range(adapters))
    dealt = tuple(ranks[number % len(ranks)] for number in range(adapters))
    with contextlib.ExitStack() as stack:
        stack.enter_context(ending_on_sigterm())
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hotswap-bench-")))
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        served = find_base(base, folder)
        maker = VersionMaker(home / "adapters", served.linear_modules, rank=ranks[0], targets=tuple(targets))
        if adapters:
            say(f"making {adapters} adapters of rank {', '.join(map(str, ranks))}")
        for number, (name, rank) in enumerate(zip(names, dealt, strict=True)):
            maker.make(name, seed=number, rank=rank)
        say(f"starting a gateway with the base {served.name}")
        flags = (*_rank_flag(max(ranks), more_flags), *more_flags)
        spec = gateway_spec(home, served, flags)
        up = stack.enter_context(running([spec], logs=folder, ready_seconds=ready_seconds))
        server = up[spec.name]
        with GatewayClient(server.url) as client:
            for name in names:
                client.load_adapter(name, name)
        yield OwnGateway(server.url, served, names, dealt, folder, maker, server, flags)


def parse_ranks(text: str, *, option: str = "--ranks") -> tuple[int, ...]:
    """`8,16,64`. Raises LoadOptionError."""
    try:
        ranks = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise LoadOptionError(f"{option} {text!r}: give whole numbers with commas, e.g. 8,16,64") from None
    return check_ranks(ranks, option=option)


def check_ranks(ranks: Sequence[int], *, option: str = "--ranks") -> tuple[int, ...]:
    """Raises LoadOptionError for none, and for one that no gateway takes."""
    most = max(_slot_ranks())
    if not ranks or not all(1 <= rank <= most for rank in ranks):
        raise LoadOptionError(f"{option} {','.join(map(str, ranks))!r}: give ranks from 1 to {most}")
    return tuple(ranks)


def slot_rank(highest: int) -> int:
    """The smallest `--max-lora-rank` that takes adapters of that rank."""
    return min(rank for rank in _slot_ranks() if rank >= highest)


def _rank_flag(highest: int, flags: Sequence[str]) -> tuple[str, ...]:
    """Slots as large as the highest rank needs, where the gateway's own are smaller."""
    default = int(ServeSettings.model_fields["max_lora_rank"].default)
    if highest <= default or any(flag.partition("=")[0] == _RANK_FLAG for flag in flags):
        return ()
    return (f"{_RANK_FLAG}={slot_rank(highest)}",)


def _slot_ranks() -> tuple[int, ...]:
    return tuple(get_args(ServeSettings.model_fields["max_lora_rank"].annotation))
