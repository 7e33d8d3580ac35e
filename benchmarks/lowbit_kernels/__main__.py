"""The command line. Exit codes: 0 measured, 2 wrong usage."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.entry import command_line
from benchmarks.lowbit_kernels.report import table
from benchmarks.lowbit_kernels.shapes import SHAPES
from benchmarks.surroundings import read_surroundings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)


@app.command()
def main(
    tokens: Annotated[str, typer.Option(help="Comma list: rows of activations.")] = "1,8,32,64,256,512",
    layers: Annotated[
        str, typer.Option(help="Only layers whose title holds this, such as `135M` or `down`.")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each contender, in turns.")] = 15,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: as many as torch takes.")] = 0,
    working_set_mib: Annotated[
        int,
        typer.Option(
            min=1, help="Weights that each contender goes through, so that caches do not hold them."
        ),
    ] = 128,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file too.")] = None,
) -> None:
    """Time single linear layers: our kernels against torch's float32, bfloat16 and int4, and vLLM's oneDNN.

    HOTSWAP_CPU_ISA=avx2 measures what a processor without AVX-512 would run.

    Example: python -m benchmarks.lowbit_kernels --layers 135M
    """
    numbers = _numbers(tokens)
    shapes = [shape for shape in SHAPES if layers in shape.title()]
    if not shapes:
        raise typer.BadParameter(f"no layer's title holds {layers!r}", param_hint="--layers")

    # Before torch computes: it looks at the processor, or at what it is told to see, only once.
    from serve.engine.cpu.isa import pretend

    pretend()
    import torch

    from benchmarks.lowbit_kernels.contenders import GROUP, REFERENCE, contenders
    from benchmarks.lowbit_kernels.measurement import measure
    from serve.engine.cpu.lowbit import ops

    if threads:
        torch.set_num_threads(threads)
    where = read_surroundings(("torch",))
    rows: list[tuple[str, int, Mapping[str, Sequence[float]]]] = []
    for shape in shapes:
        console.print(f"{shape.title()}", markup=False)
        ways = contenders(shape, working_set_mib * 2**20)
        rows += [
            (shape.title(), number, measure(ways, shape.columns, number, rounds))
            for number in numbers
            if shape.takes(number)
        ]
    text = "\n".join(
        [
            f"`{command_line('lowbit_kernels')}`",
            "",
            f"{where.line()}. {torch.get_num_threads()} threads; torch with "
            f"{torch.backends.cpu.get_cpu_capability()}; ours: {ops.available()}, {_isa()}. Groups of {GROUP}; "
            f"weights from memory ({working_set_mib} MiB of them in turns); {rounds} rounds; median "
            "(least-greatest), and how many times faster than float32.",
            "",
            table(rows, REFERENCE),
        ]
    )
    sys.stdout.write(text)
    if out is not None:
        out.write_text(text)


def _isa() -> str:
    from serve.engine.cpu.lowbit import library

    return library.kernels().isa or "no kernels"


def _numbers(tokens: str) -> list[int]:
    try:
        numbers = [int(each) for each in tokens.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{tokens!r} is not a comma list of numbers", param_hint="--tokens"
        ) from error
    if min(numbers) < 1:
        raise typer.BadParameter(f"{min(numbers)} tokens cannot be measured", param_hint="--tokens")
    return numbers


if __name__ == "__main__":
    app()
