"""`hotswap bench`: every mode, by its name. A new one is a file beside this and a line here."""

from __future__ import annotations

import typer

from bases.settings_options import with_options
from benchmarks.load.commands.compare import compare
from benchmarks.load.commands.lora_tax import lora_tax
from benchmarks.load.commands.peers import peers
from benchmarks.load.commands.quant import quant
from benchmarks.load.commands.rates import run, search, sweep
from benchmarks.load.commands.suite import SKIPPED_SETTINGS, suite
from benchmarks.load.commands.swap import swap
from benchmarks.load.settings import BENCH_PREFIX, CHURN_FIELDS, BenchSettings

bench_app = typer.Typer(
    help="Put load on a server and report what it holds: throughput, latency, goodput, by adapter.",
    no_args_is_help=True,
)

# Modes that take every option of a load, and their own.
for _name, _verb in (("run", run), ("sweep", sweep), ("search", search)):
    bench_app.command(_name)(with_options(BenchSettings, env_prefix=BENCH_PREFIX)(_verb))
# ... and those whose arrivals are closed loops of several sizes.
for _name, _verb in (("lora-tax", lora_tax),):
    bench_app.command(_name)(
        with_options(BenchSettings, env_prefix=BENCH_PREFIX, skip=CHURN_FIELDS | {"arrivals"})(_verb)
    )
bench_app.command("quant")(
    with_options(BenchSettings, env_prefix=BENCH_PREFIX, skip=CHURN_FIELDS | {"arrivals", "url", "adapters"})(
        quant
    )
)
bench_app.command("compare")(compare)
bench_app.command("peers")(
    with_options(BenchSettings, env_prefix=BENCH_PREFIX, skip=CHURN_FIELDS | {"adapters"})(peers)
)
bench_app.command("suite")(
    with_options(BenchSettings, env_prefix=BENCH_PREFIX, skip=CHURN_FIELDS | SKIPPED_SETTINGS)(suite)
)
bench_app.command("swap")(
    with_options(
        BenchSettings,
        env_prefix=BENCH_PREFIX,
        skip=frozenset({"adapters", "churn", "churn_adapters", "churn_ranks"}),
    )(swap)
)
