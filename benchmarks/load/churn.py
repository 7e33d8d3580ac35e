"""Adapters that change while a load runs: verbs that are known before the start, and who carries them out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.verbs import Admin, Verb
from serve.client import GatewayClient

Kind = Literal["load", "replace", "unload"]
KINDS: tuple[Kind, ...] = ("load", "replace", "unload")
MAX_PER_MINUTE = 6000.0


@dataclass(frozen=True, slots=True)
class Change:
    """One verb. Seconds count from the start of the run."""

    at_seconds: float
    kind: Kind
    name: str
    source: str | None  # None: unload


@dataclass(frozen=True, slots=True)
class Changes:
    """Verbs in order. A verb that takes longer than the time to the next puts all that follow off: none is left
    out, and none hurries to catch up."""

    url: str
    plan: tuple[Change, ...]
    before: Mapping[str, str]  # what each name that is changed is loaded from when a run begins
    admin_key: str | None = field(default=None, repr=False)

    @contextlib.contextmanager
    def running(self, start_at_seconds: float) -> Iterator[list[Verb]]:
        """Carry the plan out beside the block; `start_at_seconds` is by `time.monotonic`.

        The list grows until the block ends; what is not due by then is left out. After it every name is as it was,
        unless the block failed. Raises GatewayRefusedError, GatewayUnreachableError when that cannot be done.
        """
        stop = threading.Event()
        with Admin(self.url, start_at_seconds, key=self.admin_key) as admin:
            thread = threading.Thread(target=self._run, args=(admin, start_at_seconds, stop), name="changes")
            thread.start()
            try:
                yield admin.done
            finally:
                stop.set()
                thread.join()
        self._restore(admin.done)

    def _run(self, admin: Admin, start_at_seconds: float, stop: threading.Event) -> None:
        late = 0.0
        for change in self.plan:
            due = start_at_seconds + change.at_seconds + late
            if stop.wait(max(0.0, due - time.monotonic())):
                return
            late += max(0.0, time.monotonic() - due)
            if change.source is None:
                admin.unload(change.name)
            else:
                admin.load(change.name, change.source, kind=change.kind)

    def _restore(self, done: Sequence[Verb]) -> None:
        with GatewayClient(self.url, admin_key=self.admin_key) as client:
            live = {adapter["name"] for adapter in client.list_adapters()["adapters"] if adapter["live"]}
            for name in sorted({verb.name for verb in done if verb.name is not None}):
                if name in self.before:
                    client.load_adapter(name, self.before[name])
                elif name in live:
                    client.unload_adapter(name)


def parse_churn(text: str) -> dict[Kind, float]:
    """`load:2,replace:2,unload:1`: verbs per minute, 0 for those that are not named. Raises LoadOptionError."""
    found: dict[Kind, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition(":")
        kind = next((kind for kind in KINDS if kind == name), None)
        if kind is None or kind in found:
            raise LoadOptionError(
                f"--churn {text!r}: {part.strip()!r} is not one of load:N, replace:N, unload:N, each once"
            )
        try:
            found[kind] = float(value)
        except ValueError:
            raise LoadOptionError(f"--churn {text!r}: {value!r} is no number of verbs per minute") from None
        if not 0 <= found[kind] <= MAX_PER_MINUTE:
            raise LoadOptionError(
                f"--churn {text!r}: {value} a minute is not between 0 and {MAX_PER_MINUTE:g}"
            )
    if not sum(found.values()):
        raise LoadOptionError(f"--churn {text!r} changes nothing")
    return {kind: found.get(kind, 0.0) for kind in KINDS}


def plan_swaps(
    name: str, sources: Sequence[str], *, every_seconds: float, seconds: float
) -> tuple[Change, ...]:
    """Replace `name` by the next of `sources` at every multiple of `every_seconds` before `seconds`."""
    count = int(np.ceil(seconds / every_seconds))
    return tuple(
        Change(number * every_seconds, "replace", name, sources[number % len(sources)])
        for number in range(count)
    )


def plan_churn(
    per_minute: Mapping[Kind, float],
    before: Mapping[str, str],
    sources: Sequence[str],
    *,
    seconds: float,
    seed: int,
    new_name: str,
) -> tuple[Change, ...]:
    """Verbs at random moments (Poisson) before `seconds`; the same seed gives the same.

    `before` is what is live at the start: name to source. replace and unload take any name that is live, load the
    name that has been gone longest; when none is gone, a new one, `new_name` with a number. replace never gives a
    name the version that it has: `sources` has two or more. A verb for which there is no name is left out.
    """
    draw = np.random.default_rng(seed)
    rates = np.array([per_minute[kind] for kind in KINDS])
    count = int(draw.poisson(rates.sum() / 60.0 * seconds))
    moments = np.sort(draw.uniform(0.0, seconds, size=count))
    drawn = draw.choice(len(KINDS), size=count, p=rates / rates.sum())
    live, gone = dict(before), list[str]()
    made = 0
    found: list[Change] = []
    for at, which in zip(moments, drawn, strict=True):
        kind, source = KINDS[int(which)], sources[int(draw.integers(len(sources)))]
        place = int(draw.integers(max(1, len(live))))
        if kind != "load" and not live:
            continue
        if kind == "load":
            if not gone:
                gone.append(f"{new_name}{made}")
                made += 1
            name = gone.pop(0)
            live[name] = source
        else:
            name = sorted(live)[place]
            if kind == "unload":
                del live[name]
                gone.append(name)
            else:
                if source == live[name]:
                    source = sources[(sources.index(source) + 1) % len(sources)]
                live[name] = source
        found.append(Change(round(float(at), 3), kind, name, None if kind == "unload" else source))
    return tuple(found)
