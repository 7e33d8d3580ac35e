"""The command line: one subcommand per verb, each a thin call into a room.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the server could not start, 4 the engine died.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.data.command import data_app
from adapters.data.settings import ENV_PREFIX as DATA_PREFIX
from adapters.data.settings import DataSettings
from adapters.evaluation.command import evaluate
from adapters.export.settings import ExportSettings
from adapters.merge.settings import MergeSettings
from adapters.training.command import SKIPPED_DATA_SETTINGS
from adapters.training.settings import ENV_PREFIX as TRAIN_PREFIX
from adapters.training.settings import TrainSettings
from bases.disk import is_unwritable, why_unwritten
from bases.errors import HotswapError
from bases.settings_options import with_options
from benchmarks.load.commands.app import bench_app
from quantize.recovery.settings import RECOVERY_PREFIX, RecoverySettings
from quantize.settings import QUANTIZE_PREFIX, QuantizeSettings
from serve.commands.adapters import adapters_app
from serve.commands.doctor import doctor
from serve.commands.gateway import API_KEY_VARIABLE, DEFAULT_URL, KEY_VARIABLE, UrlOption
from serve.commands.keys import keys_app
from serve.commands.setup import setup
from serve.observability.startup import note_stage
from serve.settings import CONFIG_VARIABLE, ServeSettings, load_settings

app = typer.Typer(
    help="Serve one base model and many LoRA adapters, loaded, replaced and removed while requests run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(adapters_app, name="adapters")
app.add_typer(keys_app, name="keys")


def _serve(config: Path | None = None, **given: Any) -> None:
    """Serve a base model with hot-swapped adapters.

    Example: hotswap serve --port 8123 --engine-arg tensor-parallel-size=2
    """
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    settings = load_settings(**given)
    from serve.observability.logs import configure_logging

    configure_logging(
        log_format=settings.log_format, level=settings.log_level, access_log=settings.access_log
    )
    note_stage("command line read")
    from serve.server import serve

    note_stage("gateway imported")
    raise typer.Exit(serve(settings))


_serve.__annotations__["config"] = Annotated[
    Path | None, typer.Option("--config", help=f"TOML file with settings. [{CONFIG_VARIABLE}]")
]
app.command("serve")(
    with_options(ServeSettings, env_prefix="HOTSWAP_", skip=frozenset({"admin_key"}))(_serve)
)


def _train(
    name: str,
    data: list[str] | None = None,
    **given: Any,
) -> None:
    """Train an adapter on files of examples, export it and put it where the gateway finds it.

    Each DATA is FILE, TASK=FILE or TASK=FILE:WEIGHT. Example: hotswap train data.jsonl --name risk --max-minutes 10
    """
    from adapters.training.command import train

    data_given = {field: given.pop(field) for field in DataSettings.model_fields if field in given}
    train(data or [], name=name, given=given, data_given=data_given, push=_pusher)


_train.__annotations__["name"] = Annotated[str, typer.Option("--name", help="Public name, e.g. risk.")]
_train.__annotations__["data"] = Annotated[
    list[str] | None, typer.Argument(help="Files or folders of examples; none with --resume.")
]
app.command("train")(
    with_options(DataSettings, env_prefix=DATA_PREFIX, skip=SKIPPED_DATA_SETTINGS)(
        with_options(TrainSettings, env_prefix=TRAIN_PREFIX)(_train)
    )
)


app.command("evaluate")(evaluate)


def _pusher(url: str) -> Callable[[Path, str], str]:
    """What sends a finished adapter to the gateway at `url`, which is asked now, before the long part."""
    from serve.client import GatewayClient
    from serve.push import push

    admin_key = os.environ.get(KEY_VARIABLE)
    with GatewayClient(url, admin_key=admin_key) as client:
        client.list_adapters()
    return lambda folder, name: push(folder, name, url=url, admin_key=admin_key)


def _quantize(
    base: str,
    **given: Any,
) -> None:
    """Make a smaller base with rounded weights, measure what that cost, and put it where `serve` finds it.

    Example: hotswap quantize default --scheme gptq-w4a16
    """
    from quantize.command import quantize

    recovery_given = {field: given.pop(field) for field in RecoverySettings.model_fields if field in given}
    quantize(base, given=given, recovery_given=recovery_given)


_quantize.__annotations__["base"] = Annotated[
    str, typer.Argument(help="Base to quantise: `default`, a folder or a hub id.", show_default=False)
]
app.command("quantize")(
    with_options(RecoverySettings, env_prefix=RECOVERY_PREFIX)(
        with_options(QuantizeSettings, env_prefix=QUANTIZE_PREFIX)(_quantize)
    )
)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue, or with --chat the user's message.")],
    adapter: Annotated[str | None, typer.Option(help="Alias or pinned version.")] = None,
    chat: Annotated[bool, typer.Option(help="Put the prompt through the chat template.")] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens to generate at most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Ask a running gateway and print the answer as it comes.

    Example: hotswap generate "The capital of France is" --max-tokens 8
    """
    from serve.client import GatewayClient

    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    options = {"adapter": adapter, "max_tokens": max_tokens, "temperature": temperature}
    body.update({name: value for name, value in options.items() if value is not None})
    key = os.environ.get(API_KEY_VARIABLE) or os.environ.get(KEY_VARIABLE)
    with GatewayClient(url, admin_key=key) as client:
        for event in client.generate(body):
            if event["event"] == "delta":
                sys.stdout.write(event["text"])
                sys.stdout.flush()
            elif event["event"] == "done":
                usage, timing = event["usage"], event["timing"]
                who = event["adapter"] or event["model"]
                sys.stdout.write("\n")
                _say(f"{who}: {usage['completion_tokens']} tokens in {timing['total_ms'] / 1000:.2f} s")


def _export(
    folder: Path,
    base: str,
    out: Path,
    initial: Path | None = None,
    prompts: Path | None = None,
    **given: Any,
) -> None:
    """Write an adapter that was made elsewhere in the form that is served exactly, with its proof.

    Example: hotswap adapters export ./dora-checkpoint --base default --out ./risk
    """
    from adapters.export.command import describe, export_folder

    report = export_folder(
        folder, base=base, out=out, initial=initial, prompts=prompts, given=given, say=_say
    )
    sys.stdout.write("\n".join(describe(report)) + "\n")


_export.__annotations__ |= {
    "folder": Annotated[Path, typer.Argument(help="PEFT adapter or fine-tuned model.", show_default=False)],
    "base": Annotated[str, typer.Option(help="Base it was trained on: `default`, a folder or a hub id.")],
    "out": Annotated[Path, typer.Option(help="New folder for the adapter.")],
    "initial": Annotated[
        Path | None, typer.Option(help="Adapter before the first step, where the start changed the base.")
    ],
    "prompts": Annotated[Path | None, typer.Option(help="Text file, one prompt a line, for the probe.")],
}
adapters_app.command("export")(with_options(ExportSettings, env_prefix="HOTSWAP_EXPORT_")(_export))


def _merge(
    adapter: str,
    base: str,
    out: Path | None = None,
    initial: Path | None = None,
    **given: Any,
) -> None:
    """Make a base with an adapter merged in, which can then be quantised or served without adapters.

    Example: hotswap adapters merge risk --base default
    """
    from adapters.merge.command import merge

    report = merge(adapter, base=base, out=out, initial=initial, given=given, say=_say)
    sys.stdout.write("\n".join(report.lines()) + "\n")


_merge.__annotations__ |= {
    "adapter": Annotated[
        str, typer.Argument(help="Folder, or a name such as risk or risk/ca967498.", show_default=False)
    ],
    "base": Annotated[str, typer.Option(help="Base it was trained on: `default`, a folder or a hub id.")],
    "out": Annotated[
        Path | None, typer.Option(help="New folder. Left out: HOTSWAP_HOME/bases/made/BASE-ADAPTER.")
    ],
    "initial": Annotated[
        Path | None, typer.Option(help="Adapter before the first step, where the start changed the base.")
    ],
}
adapters_app.command("merge")(with_options(MergeSettings, env_prefix="HOTSWAP_MERGE_")(_merge))


def _compose(
    adapters: list[str],
    base: str,
    out: Path | None = None,
    name: str | None = None,
    weights: str | None = None,
    **given: Any,
) -> None:
    """Join adapters into one that adds up what they do, exactly, with a proof on the base that serves.

    Example: hotswap adapters compose recovery risk --base ./quantised --name risk-w4
    """
    from adapters.compose.command import compose
    from adapters.export.command import describe

    report = compose(adapters, base=base, out=out, name=name, weights=weights, given=given, say=_say)
    sys.stdout.write("\n".join(describe(report)) + "\n")


_compose.__annotations__ |= {
    "adapters": Annotated[
        list[str], typer.Argument(help="Folders, or names such as risk or risk/ca967498.", show_default=False)
    ],
    "base": Annotated[str, typer.Option(help="Base that serves: `default`, a folder or a hub id.")],
    "out": Annotated[Path | None, typer.Option(help="New folder for the joined adapter.")],
    "name": Annotated[str | None, typer.Option(help="Publish it under this name.")],
    "weights": Annotated[
        str | None, typer.Option(help="How strongly each goes in, as in 1,0.5. Left out: 1 each.")
    ],
}
adapters_app.command("compose")(with_options(ExportSettings, env_prefix="HOTSWAP_EXPORT_")(_compose))


@adapters_app.command("check")
def check_adapter(
    path: Annotated[Path, typer.Argument(help="Folder of a PEFT LoRA adapter.")],
    base: Annotated[
        str | None, typer.Option(help="Base to check names and shapes against; `none` for no base.")
    ] = None,
    max_lora_rank: Annotated[int, typer.Option(help="Highest rank the gateway takes.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check an adapter without loading it: every problem at once. Exit code 1 when there is one.

    Example: hotswap adapters check ./risk
    """
    import orjson

    from adapters.check import check_adapter as check
    from serve.engine_setup import checked_base

    target = None if base == "none" else checked_base(base or "default", load_settings().home, progress=_say)
    report = check(path, target=target, max_lora_rank=max_lora_rank)
    text = orjson.dumps(report.to_dict()).decode() if as_json else report.render()
    sys.stdout.write(text + "\n")
    raise typer.Exit(0 if report.ok else 1)


app.command()(setup)
app.command()(doctor)


def _say(text: str) -> None:
    """A line for the person at the terminal, apart from the output proper."""
    sys.stderr.write(text + "\n")


def _forget_output() -> None:
    """Send what still waits for standard output nowhere: Python would try again at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def main() -> None:
    """Run the command line; errors that are messages to the user are one line, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An answer in Chinese on a terminal in another encoding is shown as it can be, and ends nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where what it runs into is an error like any other
    except HotswapError as error:
        _say(f"hotswap: {error}")
        sys.exit(1)
    except BrokenPipeError:  # whoever read it has seen enough
        _forget_output()
        sys.exit(1)
    except OSError as error:
        # What no room has put into words: mostly standard output, in a file on a full disk.
        if not is_unwritable(error):
            raise
        _say(f"hotswap: {error.filename or 'standard output'} cannot be written: {why_unwritten(error)}")
        _forget_output()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
