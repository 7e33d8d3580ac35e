"""One engine's measurements, in a process of its own: a task as JSON on standard input, a result on output."""

from __future__ import annotations

import os
import statistics
import sys
import warnings
from collections.abc import Callable
from typing import Any

from benchmarks.step_profile.decode import Decoder
from benchmarks.step_profile.task import SHORTER, VLLM, Breakdown, ProfileResult, ProfileTask, StepTimes
from benchmarks.step_profile.timers import Timers


def run(task: ProfileTask) -> ProfileResult:
    """Measure the steps with each part alone, with all and with none, in turns; then where the time goes."""
    import torch

    from serve.engine.cpu import direct_decoder, layer_paths
    from serve.engine.cpu.kernel_report import linear_kernels

    engine = _make_engine(task.arguments)
    core = engine.engine_core.engine_core
    worker = core.model_executor.driver_worker.worker
    model = worker.model_runner.model
    parts = layer_paths.installed()
    variants: dict[str, tuple[str, ...]] = {VLLM: (), SHORTER: tuple(parts)}
    variants |= {f"{name} alone": (name,) for name in parts}
    shortened = layer_paths.shorten(model, parts.values())
    decoder = Decoder(engine, task.prompt_tokens, _lora_request(task.adapter))

    def use(variant: str, between: Callable[[], None] = _nothing) -> None:
        """Shorten what the variant says; `between` comes before whole layers, which hold their parts."""
        layer_paths.restore(model)
        layer_paths.shorten(model, [parts[name] for name in variants[variant] if name != direct_decoder.PART])
        between()
        layer_paths.shorten(model, [parts[name] for name in variants[variant] if name == direct_decoder.PART])

    steps, breakdowns = [], []
    for concurrency in task.concurrencies:
        with decoder.decoding(concurrency):
            pass
        for number in range(task.rounds):
            names = list(variants)
            for variant in names[number % len(names) :] + names[: number % len(names)]:
                use(variant)
                with decoder.decoding(concurrency):
                    walls, threads = decoder.measure(task.block_seconds)
                steps.append(
                    StepTimes(
                        variant=variant,
                        concurrency=concurrency,
                        round=number,
                        num_steps=len(walls),
                        wall_seconds=statistics.median(walls),
                        thread_seconds=statistics.median(threads),
                    )
                )
            breakdowns += [
                _break_down(engine, decoder, use, variant, concurrency, number, task)
                for variant in (VLLM, SHORTER)
            ]
    return ProfileResult(
        title=task.title,
        dtype=str(engine.model_config.dtype).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
        kernels=linear_kernels(worker),
        shortened=dict(shortened),
        steps=steps,
        breakdowns=breakdowns,
    )


def _break_down(
    engine: Any,
    decoder: Decoder,
    use: Callable[..., None],
    variant: str,
    concurrency: int,
    number: int,
    task: ProfileTask,
) -> Breakdown:
    timers = Timers(engine)
    use(VLLM)
    timers.attach_products()
    use(variant, timers.attach)
    try:
        with decoder.decoding(concurrency):
            watch = timers.stopwatch
            watch.clear()
            count = len(decoder.measure(task.block_seconds)[0])
            return Breakdown(
                variant=variant,
                concurrency=concurrency,
                round=number,
                wall_seconds={label: total / count for label, total in watch.wall_seconds.items()},
                thread_seconds={label: total / count for label, total in watch.thread_seconds.items()},
                calls={label: total / count for label, total in watch.calls.items()},
            )
    finally:
        timers.detach()


def _nothing() -> None:
    pass


def _make_engine(arguments: list[str]) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.llm_engine import LLMEngine

    parsed = make_arg_parser(FlexibleArgumentParser(prog="vllm")).parse_args(arguments)
    return LLMEngine.from_engine_args(EngineArgs.from_cli_args(parsed))


def _lora_request(adapter: str | None) -> Any:
    if adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("profiled", 1, adapter)


def main() -> int:
    """Exit codes: 0 measured, 1 not."""
    task = ProfileTask.model_validate_json(sys.stdin.read())
    answers = os.fdopen(os.dup(1), "w")  # whatever vLLM prints belongs to standard error
    os.dup2(2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run(task)
    print(result.model_dump_json(), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
