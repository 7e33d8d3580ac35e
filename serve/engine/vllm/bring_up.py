"""What a start of vLLM consists of: libraries, arguments, client. Each stage is written down when it ends."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
from typing import Any

from serve.engine.cpu import forked_core, start_report
from serve.engine.cpu.plugin import PATCHES_VARIABLE, CpuPart, requested_parts
from serve.engine.vllm.arguments import EngineArguments
from serve.engine.vllm.step_stats import held_step_stats
from serve.errors import SettingsError
from serve.observability.startup import note_stage

logger = logging.getLogger("hotswap.engine")

# Of these each takes seconds; vLLM imports the first two, and so they are timed apart.
_LIBRARIES = (
    ("torch", "torch"),
    ("transformers", "transformers"),
    ("vLLM", "vllm.entrypoints.launchers.cli_args"),
    ("vLLM's client", "vllm.v1.engine.async_llm"),
)


def start_fork_server(chosen: EngineArguments) -> None:
    """Let the engine's imports begin beside ours, where that part is wanted; `chosen.environment` is in place."""
    parts = requested_parts(chosen.environment.get(PATCHES_VARIABLE, ""))
    # Parallel engines are started in environments that vLLM makes for each of them.
    if CpuPart.FORKED_CORE not in parts or any("parallel" in name for name in chosen.arguments):
        return
    if forked_core.start_server():
        note_stage("engine's fork server started")


def import_libraries() -> None:
    """Import what the client needs."""
    for title, module in _LIBRARIES:
        importlib.import_module(module)
        note_stage(f"{title} imported")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Through vLLM's own parser. Raises SettingsError with what it says."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm"))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed: argparse.Namespace = parser.parse_args(arguments)
    except SystemExit:
        reason = said.getvalue().strip().splitlines()[-1:] or ["it gave no reason"]
        raise SettingsError(f"vLLM does not take these --engine-arg settings: {reason[0]}") from None
    return parsed


def make_client(args: argparse.Namespace) -> Any:
    """AsyncLLM, whose engine process is up when this returns. Raises SettingsError."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    engine_args = AsyncEngineArgs.from_cli_args(args)
    try:
        config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    except (ValueError, OSError) as error:
        raise SettingsError(f"vLLM cannot be started with these settings: {error}"[:2000]) from None
    note_stage("engine configured")
    return AsyncLLM.from_vllm_config(
        config, usage_context=UsageContext.OPENAI_API_SERVER, stat_loggers=[held_step_stats()]
    )


async def note_engine_stages(client: Any) -> None:
    """Write down what the worker says of its own start, where the plugin runs in it."""
    stages: dict[str, float] = (await client.collective_rpc(start_report.METHOD))[0]
    for stage, at in stages.items():
        note_stage(stage, at)
