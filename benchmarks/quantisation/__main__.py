"""The command line. Exit codes: 0 reported, 1 could not be measured, 2 wrong usage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bases.processor import NATIVE_BF16_FLAGS, read_cpuinfo
from bases.settings import BasesSettings
from benchmarks.entry import command_line, run_app
from benchmarks.errors import PlanError
from benchmarks.quantisation.plan import PARTS, ReportPlan, quick
from benchmarks.surroundings import CHECKOUT

EXAMPLE = CHECKOUT / "examples" / "risk" / "test.jsonl"
PUBLISHED = CHECKOUT / "docs" / "quantisation-report.html"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    base: Annotated[str, typer.Option(help="Base model: `default`, a folder or a hub id.")] = "default",
    adapter: Annotated[
        str, typer.Option(help="Adapter of the task, by published name or folder: merged in, and put on top.")
    ] = "risk",
    schemes: Annotated[str, typer.Option(help="Schemes of `hotswap quantize`.")] = "int8-w8a8,gptq-w4a16",
    data: Annotated[Path, typer.Option(help="The task's test notes (JSONL), not trained on.")] = EXAMPLE,
    label_pattern: Annotated[
        str, typer.Option(help="Regex with one group: the label in an answer.")
    ] = r"Risk: (\d)",
    calibration: Annotated[
        list[Path] | None, typer.Option(help="Files to calibrate with. Default: the shipped set.")
    ] = None,
    dtypes: Annotated[
        str | None,
        typer.Option(help="Formats to serve in. Default: float32, and bfloat16 where the processor has it."),
    ] = None,
    parts: Annotated[str, typer.Option(help="Parts to do; what is recorded is not done again.")] = ",".join(
        PARTS
    ),
    made: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FOLDER of what is there: adapter, merged/original, merged/SCHEME, plain/SCHEME, "
            "recovery/SCHEME (the recovery adapter of the plain form)."
        ),
    ] = None,
    recover: Annotated[bool, typer.Option(help="Make recovery adapters of 4-bit forms.")] = True,
    concurrency: Annotated[str, typer.Option(help="Requests under way at once, one cell each.")] = "1,8,32",
    rounds: Annotated[int, typer.Option(help="Rounds of the speed part, in turns.")] = 3,
    requests: Annotated[int, typer.Option(help="Measured requests per block, at least.")] = 8,
    max_tokens: Annotated[int, typer.Option(help="Length of the answers of the speed part.")] = 32,
    speed_minutes: Annotated[float, typer.Option(help="The speed part begins no round after this.")] = 10.0,
    task_examples: Annotated[int, typer.Option(help="Notes asked of each server.")] = 500,
    prompts: Annotated[int, typer.Option(help="Prompts compared with transformers.")] = 50,
    quality_rows: Annotated[int, typer.Option(help="Rows of 256 tokens of each text.")] = 16,
    kv_cache_gib: Annotated[float, typer.Option(help="KV cache of each server, in GiB.")] = 0.5,
    cpu_isa: Annotated[
        str | None, typer.Option(help="avx2: all servers as if the processor had no more.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Name of this machine in the report. Default: native, or --cpu-isa.")
    ] = None,
    short: Annotated[bool, typer.Option("--quick", help="A few minutes, to try the way.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of records and requests. Default: HOTSWAP_HOME/benchmarks/...")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="The page (.html), .md and .json beside it. Default: docs/ for the default base."),
    ] = None,
) -> None:
    """Measure what quantising a base costs and brings, and write the report.

    Example: python -m benchmarks.quantisation --schemes int8-w8a8,gptq-w4a16
    """
    console = Console(stderr=True)
    home = BasesSettings().home
    plan = ReportPlan(
        base=base,
        adapter=adapter,
        data=data.expanduser().absolute(),
        calibration=tuple(path.expanduser().absolute() for path in calibration or ()),
        label_pattern=label_pattern,
        schemes=_names(schemes),
        dtypes=_names(dtypes) if dtypes is not None else default_dtypes(cpu_isa),
        parts=tuple(part for part in PARTS if part in _names(parts)) + _strangers(_names(parts)),
        label=label or cpu_isa or "native",
        isa=cpu_isa,
        home=home,
        out=(out or home / "benchmarks" / "quantisation" / ("quick" if short else "full"))
        .expanduser()
        .absolute(),
        made=_made(made or []),
        concurrency=_numbers(concurrency),
        rounds=rounds,
        requests=requests,
        max_tokens=max_tokens,
        speed_seconds=60 * speed_minutes,
        task_examples=task_examples,
        equality_prompts=prompts,
        quality_rows=quality_rows,
        kv_cache_gib=kv_cache_gib,
        recover=recover,
    )
    if short:
        plan = quick(plan)
    plan.check()
    started = time.monotonic()

    def say(text: str) -> None:
        seconds = int(time.monotonic() - started)
        console.print(
            f"{seconds // 60:3d}:{seconds % 60:02d}  {text}", markup=False, highlight=False, soft_wrap=True
        )

    from benchmarks.quantisation.publish import print_report, publish
    from benchmarks.quantisation.run import run_report

    command = command_line("quantisation")
    found = run_report(plan, command=command, say=say)
    if "report" in plan.parts:
        # Only a whole run of the default base may replace the published report unasked.
        published = base == "default" and not short and out is None
        for path in publish(found, report or (PUBLISHED if published else plan.out / PUBLISHED.name)):
            say(f"wrote {path}")
    print_report(found, Console(width=max(160, console.width)))


def default_dtypes(isa: str | None) -> tuple[str, ...]:
    """float32, and bfloat16 where the processor, as simulated, multiplies it natively."""
    native = isa is None and bool(read_cpuinfo()[0] & NATIVE_BF16_FLAGS)
    return ("float32", "bfloat16") if native else ("float32",)


def _strangers(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in PARTS)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError:
        raise PlanError(f"--concurrency {text!r} is not a list of numbers; write e.g. 1,8,32") from None


def _made(pairs: list[str]) -> dict[str, Path]:
    found = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not equals or not folder:
            raise PlanError(f"--made {pair!r} is not of the form NAME=FOLDER, such as merged/gptq-w4a16=./w4")
        found[name.strip()] = Path(folder).expanduser().absolute()
    return found


if __name__ == "__main__":
    run_app(app, "quantisation")
