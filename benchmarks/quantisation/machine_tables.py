"""Tables of what was measured on one machine; `where` names it in their titles."""

from __future__ import annotations

from benchmarks.quantisation import tutorials
from benchmarks.quantisation.figures import Measured, TaskFigures
from benchmarks.quantisation.report import MachineFigures, Report
from benchmarks.quantisation.table import Table
from benchmarks.quantisation.task import kept_share
from benchmarks.quantisation.verdicts import verdicts
from benchmarks.quantisation.wording import NONE, mib, milliseconds, ratio, spread, times


def verdict_table(report: Report, figures: MachineFigures, where: str) -> Table:
    rows = [(each.promise, each.found, each.word) for each in verdicts(report, figures)]
    return Table(f"What was promised{where}", "", ("promise", "measured", "verdict"), rows)


def memory_table(figures: MachineFigures, where: str) -> Table:
    original = figures.memory_of("float32")
    rows = [
        (
            each.served,
            mib(each.weights_bytes),
            times(ratio(each.weights_bytes, original.weights_bytes if original else None)),
            mib(each.slots_bytes),
            mib(each.pss_without_kv_bytes),
            times(ratio(each.pss_without_kv_bytes, original.pss_without_kv_bytes if original else None)),
            mib(each.kv_cache_bytes),
            mib(each.peak_bytes),
        )
        for each in figures.memory
    ]
    return Table(
        f"Memory at serve time{where}",
        "Weights: private memory that loading added to the engine, layouts of kernels included. Whole server: "
        "proportional share of all its processes after some requests, KV cache taken off. Peak: the sum of the "
        "processes' highest residence, with the KV cache. The KV cache has the same size in tokens' bytes for all; "
        "slots are the room for adapters.",
        (
            "served",
            "weights MiB",
            "of float32",
            "slots MiB",
            "whole server MiB",
            "of float32",
            "KV cache MiB",
            "peak MiB",
        ),
        rows,
    )


def speed_table(figures: MachineFigures, where: str) -> Table:
    speed = figures.speed
    if speed is None:
        return Table("Speed", "", (), [])
    rows = [
        (
            str(cell.concurrency),
            cell.served,
            spread(cell.output_tok_s),
            "baseline" if cell.served == speed.baseline else spread(cell.throughput_ratio, "{:.2f}"),
            milliseconds(cell.ttft_p50_seconds),
            f"{milliseconds(cell.ttft_p99_seconds)} ({cell.answered})",
            "baseline" if cell.served == speed.baseline else spread(cell.ttft_ratio, "{:.2f}"),
            milliseconds(cell.tpot_p50_seconds),
            f"{cell.noisy_blocks} of {cell.blocks}",
        )
        for cell in speed.cells
    ]
    prompts = (
        " to ".join(map(str, (speed.prompt_tokens[0], speed.prompt_tokens[-1])))
        if speed.prompt_tokens
        else "?"
    )
    turns = (
        "all servers up, one under load at a time"
        if speed.together
        else "one server at a time, started anew in each round"
    )
    return Table(
        f"Speed{where}",
        f"Closed loop, streamed, greedy; prompts of {prompts} tokens, none sent twice; answers of exactly "
        f"{speed.max_tokens} tokens; {speed.rounds} of {speed.rounds_wanted} rounds in turns, {turns}. Median "
        f"(least to greatest) over rounds; ratios are of pairs in the same round, against {speed.baseline}; p99 of "
        "few requests is close to the slowest one. Busy: blocks during which something else used more than 5 % of "
        "the machine.",
        (
            "c",
            "served",
            "tok/s",
            "of float32",
            "TTFT p50 ms",
            "TTFT p99 ms (n)",
            "TTFT of float32",
            "TPOT p50 ms",
            "busy",
        ),
        rows,
        speed.warnings,
    )


def task_table(report: Report, figures: MachineFigures, where: str) -> Table:
    original = figures.task_of("merged", "float32", None)
    rows = [
        (
            each.served,
            _accuracy(each.accuracy),
            "baseline" if each is original or original is None else _kept(each, original),
            f"{each.num_tokens / each.seconds:.0f}",
        )
        for each in figures.task
        if each.subject == "merged"
    ]
    return Table(
        f"Task accuracy with {report.adapter} merged in{where}",
        "Share of the test notes whose level was found in the answer and right, through the gateway; in brackets "
        "95 % intervals (Wilson's; of what was kept: paired bootstrap).",
        ("served", "accuracy", "of the original's", "answer tokens per second (32 at once)"),
        rows,
    )


def adapter_table(report: Report, figures: MachineFigures, where: str) -> Table:
    original = figures.task_of("plain", "float32", report.adapter)
    rows = [
        (
            each.served,
            each.adapter or "none",
            _accuracy(each.accuracy),
            "baseline" if each is original or original is None else _kept(each, original),
        )
        for each in figures.task
        if each.subject == "plain"
    ]
    return Table(
        f"Task accuracy with {report.adapter} on top{where}",
        "The unmerged base with the adapter loaded into the gateway, in float32. `recovered` is the adapter "
        "composed with the recovery adapter of that quantised base. The unmerged base came from 4-bit weights, "
        "which flatters 4-bit here.",
        ("served", "adapter", "accuracy", "of the original's"),
        rows,
    )


def equality_table(figures: MachineFigures, where: str) -> Table:
    rows = [
        (
            each.served,
            each.adapter or "none",
            str(each.num_prompts),
            f"{each.num_equal} ({each.num_equal / each.num_prompts:.0%})",
            str(each.num_ties),
            f"{each.max_logprob_difference:.1e}",
            NONE
            if each.control_equal is None or each.control_max_logprob_difference is None
            else f"{each.control_equal}, {each.control_max_logprob_difference:.1e}",
        )
        for each in figures.equality
    ]
    return Table(
        f"Served against transformers{where}",
        "Greedy answers of the gateway in float32 against the dequantised weights in transformers (with PEFT), the "
        "same files, activations rounded where the scheme rounds them. An answer that parts at a tie differs where "
        "the two likeliest tokens were less than 0.001 nats apart. Control, where activations are rounded: the "
        "answers of transformers in batches of another size. What the order of summing changes by 1e-7 may round "
        "to another integer there, so that two right computations differ by more than rounding of floats.",
        (
            "served",
            "adapter",
            "prompts",
            "equal",
            "part at a tie",
            "largest logprob difference, nats",
            "control: equal, difference",
        ),
        rows,
    )


def capital_table(figures: MachineFigures, where: str) -> Table:
    rows = [
        (f"{each.subject} base", each.served, "yes" if each.says_paris else "NO", " ".join(each.text.split()))
        for each in figures.capital
    ]
    return Table(
        f"What is the capital of France?{where}",
        "Greedy answers without an adapter. A base with a task merged in may answer in the task's form.",
        ("base", "served", "Paris", "answer"),
        rows,
    )


def tutorial_table(report: Report, figures: MachineFigures, where: str) -> Table:
    return Table(
        f"What fine-tuning tutorials print, and what was measured{where}",
        "Tutorials print one loss, one memory and one speed for each way of quantising, mostly without machine, "
        "text or spread. Ratios here are against the original in float32.",
        tutorials.HEADINGS,
        tutorials.rows(report, figures) if figures.memory else [],
    )


def _accuracy(value: Measured) -> str:
    return spread(value, "{:.1f}", scale=100) + f" % of {value.count}"


def _kept(ours: TaskFigures, original: TaskFigures) -> str:
    kept = kept_share(ours, original)
    return NONE if kept is None else spread(kept, "{:.1f}", scale=100) + " %"
