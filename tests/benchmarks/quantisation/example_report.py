"""A report with figures that can be worked out by hand."""

from __future__ import annotations

from benchmarks.quantisation.figures import (
    CapitalAnswer,
    EqualityFigures,
    Machine,
    Made,
    MadeAdapter,
    MadeForm,
    Measured,
    MemoryFigures,
    SpeedCell,
    SpeedFigures,
    TaskFigures,
)
from benchmarks.quantisation.report import MachineFigures, Report
from quantize.quality.figures import Figure, QualityFigures

MIB = 1024**2
W4, INT8 = "gptq-w4a16", "int8-w8a8"


def form(name: str, scheme: str | None, mib: int) -> MadeForm:
    return MadeForm(
        folder=f"/bases/{name}", name=name, fingerprint=name * 2, scheme=scheme, disk_bytes=mib * MIB
    )


def quality(kl: float, ratio: float) -> QualityFigures:
    return QualityFigures(
        num_rows=4,
        num_tokens=400,
        original_perplexity=Figure(value=10.0, low=9.0, high=11.0),
        quantised_perplexity=Figure(value=10.0 * ratio, low=9.0, high=12.0),
        perplexity_ratio=Figure(value=ratio, low=ratio - 0.01, high=ratio + 0.01),
        mean_kl_nats=Figure(value=kl, low=kl / 2, high=kl * 2),
        p99_kl_nats=Figure(value=10 * kl),
        top1_agreement=Figure(value=0.9, low=0.88, high=0.92),
        seconds=1.0,
    )


def memory(served: str, weights_mib: int) -> MemoryFigures:
    return MemoryFigures(
        served=served,
        weights_bytes=weights_mib * MIB,
        slots_bytes=10 * MIB,
        kv_cache_bytes=256 * MIB,
        pss_bytes=(500 + 256 + weights_mib) * MIB,
        peak_bytes=2000 * MIB,
        load_seconds=3.0,
    )


def cell(served: str, concurrency: int, rate: float, ratio: float | None, noisy: int = 0) -> SpeedCell:
    return SpeedCell(
        served=served,
        concurrency=concurrency,
        attempted=12,
        answered=12,
        output_tok_s=Measured(value=rate, low=rate - 1, high=rate + 1, count=3),
        ttft_p50_seconds=0.05,
        ttft_p99_seconds=0.08,
        tpot_p50_seconds=1 / rate,
        throughput_ratio=None
        if ratio is None
        else Measured(value=ratio, low=ratio - 0.1, high=ratio + 0.1, count=3),
        ttft_ratio=None if ratio is None else Measured(value=0.5, low=0.4, high=0.6, count=3),
        noisy_blocks=noisy,
        blocks=3,
    )


def task(subject: str, served: str, adapter: str | None, right: str) -> TaskFigures:
    return TaskFigures.model_validate(
        {
            "subject": subject,
            "served": served,
            "adapter": adapter,
            "accuracy": {"value": right.count("1") / len(right), "count": len(right)},
            "right": right,
            "num_tokens": 1000,
            "seconds": 10.0,
        }
    )


def speed(noisy: int = 0) -> SpeedFigures:
    return SpeedFigures(
        started="2026-01-02T03:04:05+00:00",
        rounds=3,
        rounds_wanted=3,
        max_tokens=32,
        prompt_tokens=(35,),
        baseline="float32",
        together=True,
        cells=(
            cell("float32", 1, 20.0, None),
            cell(f"{INT8}/float32", 1, 22.0, 1.1),
            cell(f"{W4}/float32", 1, 50.0, 2.5, noisy=noisy),
            cell("float32", 8, 100.0, None),
            cell(f"{W4}/float32", 8, 150.0, 1.5),
        ),
    )


def machine_figures(noisy: int = 0) -> MachineFigures:
    served = f"{W4}/float32"
    return MachineFigures(
        machine=Machine(line="a processor, 2 cores"),
        memory=(memory("float32", 500), memory(f"{INT8}/float32", 200), memory(served, 150)),
        capital=(
            CapitalAnswer(subject="plain", served="float32", text="Paris, of course.", says_paris=True),
            CapitalAnswer(subject="merged", served=served, text="<b>Risk: 0</b> | x", says_paris=False),
        ),
        task=(
            task("merged", "float32", None, "1111111110"),
            task("merged", served, None, "1111111100"),
            task("plain", "float32", "risk", "1111111110"),
            task("plain", served, "risk", "1111111000"),
            task("plain", served, "recovered", "1111111110"),
        ),
        equality=(
            EqualityFigures(
                subject="plain",
                served=served,
                adapter=None,
                num_prompts=50,
                num_equal=49,
                num_ties=1,
                num_tokens=780,
                max_logprob_difference=3.1e-5,
            ),
        ),
        speed=speed(noisy),
    )


def example_report(**changes: object) -> Report:
    made = Made(
        merged=(form("merged", None, 512), form("w8", INT8, 160), form("w4", W4, 128)),
        plain=(form("plain", None, 512), form("plain-w4", W4, 128)),
        adapter=MadeAdapter(name="risk", folder="/adapters/risk", digest="ab" * 32, rank=16),
    )
    report = Report(
        created="2026-01-02T03:04+00:00",
        command="python -m benchmarks.quantisation",
        quick=False,
        base="smollm2-135m-instruct",
        made=made,
        texts={"chat": "held-out chat"},
        quality={
            f"{INT8}/chat": quality(0.01, 1.012),
            f"{W4}/chat": quality(0.1, 1.1),
            f"plain/{W4}/chat": quality(0.08, 1.05),
            f"plain/{W4}+recovery/chat": quality(0.04, 1.02),
        },
        machines={"native": machine_figures()},
        notes=("a note",),
    )
    return report.model_copy(update=changes)
