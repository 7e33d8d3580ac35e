"""The peers under load, in turns: servers up, adapters loaded, an arm for every way to ask."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.load.bench import Bench, prepare
from benchmarks.load.client.wire import PATHS, Dialect
from benchmarks.load.errors import NothingMeasuredError
from benchmarks.load.peers.lineup import Lineup
from benchmarks.load.peers.meter import Meter
from benchmarks.load.peers.pace import WarmUp, paced
from benchmarks.load.peers.peer import GATEWAY, Peer
from benchmarks.load.peers.rest import wait_until_at_rest
from benchmarks.load.peers.waves import Wave, take_waves
from benchmarks.load.rounds import Arm, Turn, take_turns
from benchmarks.load.settings import BenchSettings
from benchmarks.load.workload.arrivals import Arrivals
from benchmarks.server import Server, free_port, running
from benchmarks.sigterm import ending_on_sigterm
from serve.client import GatewayClient

_READY_SECONDS = 900.0
_WARM_UP_SEED = 1_000_000  # its texts are not sent again


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask one peer: an arm under each load."""

    peer: Peer
    dialect: Dialect
    adapters: bool
    bench: Bench

    @property
    def name(self) -> str:
        """Peer, and what tells its ways apart."""
        parts = [self.peer.name]
        if len(self.peer.dialects) > 1:
            parts.append(PATHS[self.dialect])
        if self.adapters:
            count = len(self.bench.load.adapters)
            parts.append(f"with {count} adapter{'s' if count > 1 else ''}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Heat:
    """All turns under one load."""

    load: Arrivals
    arms: Sequence[Arm]
    ways: Sequence[Way]  # of the arms, in their order
    turns: list[Turn]  # so far


class Contest:
    """One comparison of the peers of `lineup`, whose logs go into `folder`."""

    def __init__(
        self,
        lineup: Lineup,
        settings: BenchSettings,
        *,
        together: bool,
        most_seconds: float,
        folder: Path,
        say: Callable[[str], None],
        progress: Callable[[dict[str, float]], None],
    ) -> None:
        """Not `together`: each server is up for its own turns alone, started anew for each.

        `most_seconds`: the longest window that a slow server gets.
        """
        self._settings, self._together, self._folder = settings, together, folder
        self._most_seconds = most_seconds
        self._say, self._progress = say, progress
        self.peers = lineup.peers if together else tuple(_at_a_port(peer) for peer in lineup.peers)
        self._adapters = lineup.adapters
        self._up: Mapping[str, Server] = {}
        self.stopped: str | None = None  # why not all turns were taken
        self.interrupted = False
        self.left_out: dict[str, str] = {}  # arms without runs, and why
        self.waves: dict[str, dict[str, list[Wave]]] = {}  # by load, and by the name of a way

    def run(self, loads: Sequence[Arrivals], rounds: int, baseline: str, *, waves: int = 0) -> list[Heat]:
        """Measure. Arms of the base are set against the peer `baseline`, those of adapters against their own base.

        After the turns the closed loops come in that many `waves`, to servers that are up together and stream.

        What ends it early is raised as long as no run has ended (BenchmarkError, KeyboardInterrupt); later it is
        `stopped`, and the runs so far stay.
        """
        with ending_on_sigterm(), contextlib.ExitStack() as stack:
            ways: list[Way] = []
            if self._together:
                self._say(f"starting {', '.join(peer.name for peer in self.peers)}")
                self._up = stack.enter_context(self._started(self.peers))
            warm_ups: dict[str, WarmUp] = {}
            for peer in self.peers:
                with self._servers(peer) as servers:
                    found = self._ways_of(peer, servers[peer.name])
                    for load in loads:
                        warm_ups |= self._warm_up(found, load)
                ways += found
            heats = self._heats(loads, ways, rounds, baseline, warm_ups)
            if waves and self._together and self.stopped is None:
                self._take_waves(loads, ways, waves)
        if not heats:
            raise NothingMeasuredError("\n".join(f"{name}: {why}" for name, why in self.left_out.items()))
        return heats

    def _heats(
        self,
        loads: Sequence[Arrivals],
        ways: Sequence[Way],
        rounds: int,
        baseline: str,
        warm_ups: Mapping[str, WarmUp],
    ) -> list[Heat]:
        """Those with turns."""
        heats: list[Heat] = []
        for load in loads:
            heat, meters = self._heat(load, ways, baseline, warm_ups)
            heats.append(heat)
            try:
                take_turns(heat.arms, rounds=rounds, progress=self._progress, say=self._say, into=heat.turns)
            except (BenchmarkError, KeyboardInterrupt) as error:
                if not any(one.turns for one in heats):
                    raise
                self._stop(error)
            for turn in heat.turns:
                meters[turn.arm].note(turn.round, turn.run)
            if self.stopped is not None:
                break
        return [heat for heat in heats if heat.turns]

    def _take_waves(self, loads: Sequence[Arrivals], ways: Sequence[Way], count: int) -> None:
        for load in loads:
            fast = [way for way in ways if way.peer.streams and _arm_name(way, load) not in self.left_out]
            if not load.closed or not fast:
                continue
            benches = {way.name: way.bench for way in fast}
            into = self.waves.setdefault(load.text, {})
            try:
                take_waves(benches, load, count, into=into, say=self._say)
            except (BenchmarkError, KeyboardInterrupt) as error:
                self._stop(error)
                return

    def _stop(self, error: BaseException) -> None:
        self.interrupted = isinstance(error, KeyboardInterrupt)
        self.stopped = "it was interrupted" if self.interrupted else str(error)

    def _warm_up(self, ways: Sequence[Way], load: Arrivals) -> dict[str, WarmUp]:
        """The requests of one second that nobody counts: kernels and caches get their first use.

        Returns what they say, by the arm's name.
        """
        found = {}
        for way in ways:
            name = _arm_name(way, load)
            self._say(f"warming up {name}")
            settings = way.bench.settings.model_copy(update={"seconds": 1.0, "warmup_seconds": 0.0})
            bench = replace(way.bench, settings=settings)
            seed = settings.seed + _WARM_UP_SEED
            run = bench.run(f"warm-up of {name}", load, seed=seed, progress=self._progress)
            found[name] = WarmUp.of(run)
        return found

    def _heat(
        self, load: Arrivals, ways: Sequence[Way], baseline: str, warm_ups: Mapping[str, WarmUp]
    ) -> tuple[Heat, Mapping[str, Meter]]:
        """One without its turns, and the meters of its arms."""
        arms: list[Arm] = []
        taking_part: list[Way] = []
        meters: dict[str, Meter] = {}
        for way in ways:
            name = _arm_name(way, load)
            bench = paced(way.bench, load, warm_ups[name], self._most_seconds)
            if bench is None:
                self.left_out[name] = warm_ups[name].too_slow(self._most_seconds)
                self._say(f"{name}: {self.left_out[name]}")
                continue
            meters[name] = Meter()
            against = _arm_name(_against(way, ways, baseline), load)
            arms.append(Arm(name, bench, load, self._around(way, load, meters[name]), against=against))
            taking_part.append(way)
        return Heat(load, arms, taking_part, []), meters

    def _around(self, way: Way, load: Arrivals, meter: Meter) -> Callable[[], AbstractContextManager[Any]]:
        @contextlib.contextmanager
        def turn() -> Iterator[None]:
            with self._servers(way.peer) as servers:
                if not self._together:
                    self._warm_up([way], load)
                wait_until_at_rest(servers, self._most_seconds, self._say)
                with meter.turn(servers[way.peer.name]):
                    yield

        return turn

    @contextlib.contextmanager
    def _servers(self, peer: Peer) -> Iterator[Mapping[str, Server]]:
        """All that are up now, `peer` among them."""
        if self._together:
            yield self._up
            return
        self._say(f"starting {peer.name}")
        with self._started([peer]) as servers:
            yield servers

    @contextlib.contextmanager
    def _started(self, peers: Sequence[Peer]) -> Iterator[Mapping[str, Server]]:
        specs = [peer.spec for peer in peers]
        with running(specs, logs=self._folder, ready_seconds=_READY_SECONDS) as servers:
            if GATEWAY in servers and self._adapters:
                _load_into_gateway(servers[GATEWAY].url, self._adapters)
            yield servers

    def _ways_of(self, peer: Peer, server: Server) -> list[Way]:
        found = []
        for dialect in peer.dialects:
            for names in ((), tuple(self._adapters)) if self._adapters and peer.adapters else ((),):
                update: dict[str, Any] = {
                    "url": server.url,
                    "adapters": ",".join(names) or "none",
                    "stream": self._settings.stream and peer.streams,
                    "keep_alive": self._settings.keep_alive and peer.keeps_connections,
                }
                if "metrics_every_seconds" not in self._settings.model_fields_set:
                    # Making the text takes from what is measured, and each server's is of another length.
                    update["metrics_every_seconds"] = 0.0
                settings = self._settings.model_copy(update=update)
                bench = prepare(settings, dialect=dialect)
                # Ways of one peer share a server, whose prefix cache must not know what the other one sent.
                salt = f"/{dialect}" if len(peer.dialects) > 1 else ""
                bench = replace(bench, prompts=replace(bench.prompts, salt=salt))
                found.append(Way(peer, dialect, bool(names), bench))
        return found


def _at_a_port(peer: Peer) -> Peer:
    """It comes back where it was, however often it is started."""
    return replace(peer, spec=replace(peer.spec, port=free_port())) if peer.spec.command else peer


def _arm_name(way: Way, load: Arrivals) -> str:
    return f"{way.name}, {load.text}"


def _against(way: Way, ways: Sequence[Way], baseline: str) -> Way:
    """What it is set against; itself: nothing."""
    if way.adapters:
        same = (way.peer.name, way.dialect)
        return next(one for one in ways if not one.adapters and (one.peer.name, one.dialect) == same)
    if way.peer.name == baseline:
        return way
    return next(one for one in ways if one.peer.name == baseline and not one.adapters)


def _load_into_gateway(url: str, adapters: Mapping[str, Path]) -> None:
    with GatewayClient(url) as client:
        # A gateway that is started again brings its own back.
        there = {card["name"] for card in client.list_adapters()["adapters"]}
        for name, path in adapters.items():
            if name not in there:
                client.load_adapter(name, path.name)
