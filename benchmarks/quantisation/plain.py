"""The servers of the base itself, with the adapter on top: task accuracy, and equality with transformers."""

from __future__ import annotations

import gc

from bases.processor import available_memory_bytes
from bases.resolve import resolve_base
from benchmarks.quantisation.bench import Bench, adapter_folder, item_name, rank_for
from benchmarks.quantisation.equality import BaseReference
from benchmarks.quantisation.figures import Made, MadeAdapter
from benchmarks.quantisation.served import Served, groups_that_fit, servers_of
from benchmarks.server import Server
from serve.client import GatewayClient


def measure_plain(bench: Bench, made: Made) -> None:
    """What the plan wants and the records lack, in float32. An adapter that a gateway refuses is an error."""
    plan = bench.plan
    forms = [form for form in made.plain[1:] if form.takes_adapters]
    served = servers_of(made.plain[0], forms, ("float32",))
    todo = [each for each in served if _lacks(bench, each, made)]
    rank = rank_for((made.adapter, *made.recovered.values()))
    for group in groups_that_fit(todo, plan.kv_cache_gib, available_memory_bytes()):
        with bench.up(group, adapter_rank=rank, place="plain") as servers:
            for each in group:
                server = servers[each.name]
                bench.ask_capital(each, server, "plain")
                for adapter in _adapters(each, made):
                    with GatewayClient(server.url) as client:
                        client.push_adapter(adapter.name, adapter_folder(adapter))
                    bench.ask_task(each, server, "plain", adapter)
                _compare(bench, each, server, made)


def _adapters(served: Served, made: Made) -> list[MadeAdapter]:
    recovered = made.recovered.get(str(served.form.scheme))
    return [made.adapter] if recovered is None else [made.adapter, recovered]


def _lacks(bench: Bench, served: Served, made: Made) -> bool:
    return any(bench.wants_task(served, "plain", adapter) for adapter in _adapters(served, made)) or any(
        bench.wants_equality(served, adapter) for adapter in (None, made.adapter)
    )


def _compare(bench: Bench, served: Served, server: Server, made: Made) -> None:
    plan = bench.plan
    todo = [adapter for adapter in (None, made.adapter) if bench.wants_equality(served, adapter)]
    if not todo:
        return
    reference = BaseReference(resolve_base(served.form.folder, home=plan.home, progress=bench.say))
    prompts = [question.as_dicts() for question in bench.notes.questions[: plan.equality_prompts]]
    for adapter in todo:
        name = item_name("plain", served, adapter)
        figures = reference.compare(
            server.url,
            prompts,
            served=served.name,
            adapter=adapter.name if adapter is not None else None,
            adapter_folder=adapter_folder(adapter) if adapter is not None else None,
            num_tokens=plan.equality_tokens,
        )
        bench.say(
            f"equality {name}: {figures.num_equal} of {figures.num_prompts}, {figures.num_ties} at a tie"
        )
        bench.equality.put(name, bench.subject(served, adapter), figures)
    del reference
    gc.collect()
