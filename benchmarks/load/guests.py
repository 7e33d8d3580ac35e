"""Adapters that a measurement loads on a gateway and unloads afterwards; those of others are left alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bases.errors import BaseNotFoundError
from benchmarks.gateway import find_base
from benchmarks.load.bench import Bench
from benchmarks.load.churn import Changes, parse_churn, plan_churn
from benchmarks.load.client.sending import Beside
from benchmarks.load.client.target import Target
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.own_gateway import parse_ranks
from benchmarks.load.settings import BenchSettings
from benchmarks.sigterm import ending_on_sigterm
from benchmarks.versions import ALL_LINEAR, VersionMaker
from serve.client import GatewayClient
from serve.settings import load_settings

_CHURN_NAME = "bench-churn-"
_MORE_VERSIONS = 4  # than there are names, to replace them with
_FIRST_SEED = 1_000_000  # far from those of adapters that a gateway of the measurement's own has


@dataclass(frozen=True, slots=True)
class Guests:
    """Live adapters; `sources` are all that were made for them, two or more, no two alike."""

    before: Mapping[str, str]  # name -> the source that it was loaded from
    sources: tuple[str, ...]

    def asked_by(self, bench: Bench) -> Bench:
        """The same load over them as well."""
        adapters = (*bench.load.adapters, *self.before)
        return replace(
            bench,
            target=replace(bench.target, adapters=adapters),
            load=replace(bench.load, adapters=adapters),
        )


@contextlib.contextmanager
def guests(
    url: str,
    maker: VersionMaker,
    names: Sequence[str],
    *,
    sources: int,
    ranks: Sequence[int],
    admin_key: str | None = None,
) -> Iterator[Guests]:
    """Make `sources` random adapters, ranks dealt in turn, and load `names` from the first of them.

    After the block, and on SIGTERM, the names are unloaded and the files are gone. Raises LoadOptionError for one
    that is taken, GatewayRefusedError, GatewayUnreachableError.
    """
    # The gateway looks for new adapters in folders without a dot alone, where it does so by itself.
    folder = f".hotswap-bench-{os.getpid()}"
    made = tuple(f"{folder}/{number}" for number in range(max(2, sources, len(names))))
    with contextlib.ExitStack() as stack:
        stack.enter_context(ending_on_sigterm())
        client = stack.enter_context(GatewayClient(url, admin_key=admin_key))
        taken = {adapter["name"] for adapter in client.list_adapters()["adapters"] if adapter["live"]}
        if taken & set(names):
            raise LoadOptionError(
                f"{url} serves {', '.join(sorted(taken & set(names)))} already; `hotswap adapters unload` it first"
            )
        stack.callback(shutil.rmtree, maker.root / folder, ignore_errors=True)
        for number, source in enumerate(made):
            maker.make(source, seed=_FIRST_SEED + number, rank=ranks[number % len(ranks)])
        before = dict(zip(names, made, strict=False))
        stack.callback(_unload, client, names)
        for name, source in before.items():
            client.load_adapter(name, source)
        yield Guests(before, made)


@contextlib.contextmanager
def churned(bench: Bench) -> Iterator[Bench]:
    """The same load over adapters that change in each of its runs as `--churn` says, and over the others; without
    `--churn` the bench as it is. Raises LoadOptionError, GatewayRefusedError, GatewayUnreachableError.
    """
    settings = bench.settings
    if settings.churn is None:
        yield bench
        return
    per_minute = parse_churn(settings.churn)
    ranks = parse_ranks(settings.churn_ranks, option="--churn-ranks")
    names = [f"{_CHURN_NAME}{number}" for number in range(settings.churn_adapters)]
    key = settings.admin_key.get_secret_value() if settings.admin_key is not None else None
    maker = maker_for(bench.target, settings)
    count = len(names) + _MORE_VERSIONS
    with guests(bench.target.url, maker, names, sources=count, ranks=ranks, admin_key=key) as brought:

        def beside(seed: int) -> Beside:
            seconds = settings.warmup_seconds + settings.seconds
            plan = plan_churn(
                per_minute,
                brought.before,
                brought.sources,
                seconds=seconds,
                seed=seed,
                new_name=f"{_CHURN_NAME}new-",
            )
            return Changes(bench.target.url, plan, brought.before, key).running

        yield replace(brought.asked_by(bench), beside=beside)


def _unload(client: GatewayClient, names: Sequence[str]) -> None:
    live = {adapter["name"] for adapter in client.list_adapters()["adapters"] if adapter["live"]}
    for name in names:
        if name in live:
            client.unload_adapter(name)


def maker_for(target: Target, settings: BenchSettings) -> VersionMaker:
    """Who writes adapters for a gateway that runs already, into the folder that it loads from.

    Raises LoadOptionError when the base or the folder cannot be found from here.
    """
    reference = settings.adapter_base or target.base
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as folder:
        try:
            base = find_base(reference, Path(folder))
        except BaseNotFoundError as error:
            raise LoadOptionError(
                f"the base {reference!r}, for which adapters are to be made, is not here ({error}); name it "
                "with --adapter-base"
            ) from None
    root = (settings.adapter_root or load_settings().adapter_folder).expanduser()
    if not root.is_dir():
        raise LoadOptionError(
            f"{str(root)!r} is no folder; name the one that {target.url} loads adapters from with --adapter-root"
        )
    return VersionMaker(root, base.linear_modules, rank=8, targets=ALL_LINEAR)
