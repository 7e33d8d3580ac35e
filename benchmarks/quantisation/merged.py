"""The servers of the base with the adapter merged in: memory, speed, task accuracy, in every number format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bases.processor import available_memory_bytes
from benchmarks.quantisation.bench import Bench, item_name, rank_for
from benchmarks.quantisation.figures import Made
from benchmarks.quantisation.memory import read_memory
from benchmarks.quantisation.served import Served, groups_that_fit, memory_file, servers_of
from benchmarks.quantisation.speed import measure_apart, measure_together
from benchmarks.server import Server


def measure_merged(bench: Bench, made: Made) -> None:
    """What the plan wants and the records lack. Speed comes first, while nothing else was asked."""
    plan = bench.plan
    served = servers_of(made.merged[0], made.merged[1:], plan.dtypes)
    speed_subject = f"{[(each.name, each.form.fingerprint) for each in served]} {plan.load} {plan.isa}"
    wants_speed = "speed" in plan.parts and bench.speed.get("speed", speed_subject) is None
    groups = groups_that_fit(served, plan.kv_cache_gib, available_memory_bytes())
    together = len(groups) == 1
    for group in groups:
        todo = group if wants_speed and together else [each for each in group if _lacks(bench, each)]
        if not todo:
            continue
        with bench.up(todo, adapter_rank=rank_for(())) as servers:
            for each in todo:
                bench.ask_capital(each, servers[each.name], "merged")
            if wants_speed and together:
                figures = measure_together(served, servers, plan, folder=bench.folder, say=bench.say)
                bench.speed.put("speed", speed_subject, figures)
            _read_memory(bench, todo, servers)
            for each in todo:
                bench.ask_task(each, servers[each.name], "merged", None)
    if wants_speed and not together:
        bench.say(f"memory holds no {len(served)} servers at once: each is started anew in every round")
        figures = measure_apart(served, plan, folder=bench.folder, say=bench.say)
        bench.speed.put("speed", speed_subject, figures)


def _lacks(bench: Bench, served: Served) -> bool:
    return bench.wants_task(served, "merged", None) or bench.wants_memory(served)


def _read_memory(bench: Bench, served: Sequence[Served], servers: Mapping[str, Server]) -> None:
    for each in served:
        if bench.wants_memory(each):
            figures = read_memory(servers[each.name], memory_file(each, bench.folder))
            bench.memory.put(item_name("merged", each, None), bench.subject(each), figures)
