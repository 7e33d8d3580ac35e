"""The same decode steps through the engine as it is served: AsyncLLM here, the core in a process of its own.

What lies between two tokens here and is not in a step of `worker` is the way between the processes: encoding,
sockets, asyncio. A task as JSON on standard input, a result on standard output.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
import warnings
from typing import Any

from benchmarks.step_profile.task import ProfileTask, ServedResult, ServedTimes

_WARMUP_TOKENS = 4


async def run(task: ProfileTask) -> ServedResult:
    """Time between the tokens of streams, for each number of requests at once."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.async_llm import AsyncLLM

    parsed = make_arg_parser(FlexibleArgumentParser(prog="vllm")).parse_args(task.arguments)
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(parsed))
    try:
        times = []
        for concurrency in task.concurrencies:
            for number in range(task.rounds):
                tokens, gaps, front_seconds = await _block(engine, task, concurrency, number)
                times.append(
                    ServedTimes(
                        concurrency=concurrency,
                        round=number,
                        num_tokens=tokens,
                        gap_seconds=statistics.median(gaps),
                        front_cpu_seconds_per_token=front_seconds / tokens,
                    )
                )
        return ServedResult(title=task.title, times=times)
    finally:
        engine.shutdown()


async def _block(
    engine: Any, task: ProfileTask, concurrency: int, number: int
) -> tuple[int, list[float], float]:
    """Tokens, seconds between two tokens of one stream, and this process's CPU time, of a block."""
    end = asyncio.get_running_loop().create_future()
    streams = [
        asyncio.create_task(_stream(engine, task, f"{concurrency}-{number}-{i}", end))
        for i in range(concurrency)
    ]
    started = time.process_time()
    await asyncio.sleep(task.block_seconds)
    end.set_result(None)
    gaps = [gap for found in await asyncio.gather(*streams) for gap in found]
    return len(gaps), gaps, time.process_time() - started


async def _stream(engine: Any, task: ProfileTask, name: str, end: asyncio.Future[None]) -> list[float]:
    """Seconds before each token but the first few, until `end`; at least one."""
    from vllm.inputs.engine import tokens_input
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    prompt = [random.Random(name + str(i)).randrange(1000) for i in range(task.prompt_tokens)]  # noqa: S311
    adapter = LoRARequest("profiled", 1, task.adapter) if task.adapter else None
    sampling = SamplingParams(
        temperature=0, max_tokens=1024, ignore_eos=True, output_kind=RequestOutputKind.DELTA
    )
    gaps: list[float] = []
    before = time.perf_counter()
    stream = engine.generate(tokens_input(prompt), sampling, name, lora_request=adapter)
    async for _ in stream:
        now = time.perf_counter()
        gaps.append(now - before)
        before = now
        if end.done() and len(gaps) > _WARMUP_TOKENS:
            break
    await stream.aclose()
    return gaps[_WARMUP_TOKENS:]


def main() -> int:
    """Exit codes: 0 measured, 1 not."""
    task = ProfileTask.model_validate_json(sys.stdin.read())
    answers = os.fdopen(os.dup(1), "w")  # whatever vLLM prints belongs to standard error
    os.dup2(2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = asyncio.run(run(task))
    print(result.model_dump_json(), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
