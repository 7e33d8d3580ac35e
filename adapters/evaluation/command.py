"""`hotswap evaluate`: settings to objects, the table, the report files, the exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.errors import EvaluationError
from adapters.evaluation.settings import EVALUATION_PREFIX, EvaluationSettings, load_evaluation_settings
from adapters.published import find_adapter
from bases.settings_options import with_options

if TYPE_CHECKING:
    from adapters.data.example import Example
    from adapters.evaluation.answerers.answerer import Answerer
    from adapters.evaluation.labels import LabelRule
    from adapters.evaluation.report import EvaluationReport
    from bases.resolve import ResolvedBase

_MISSED = 1  # exit code for --fail-under
_DIGEST8 = re.compile("[0-9a-f]{8}")


def _evaluate(data: list[Path], **given: Any) -> None:
    """Measure an adapter against its base on held-out data, through transformers or a running gateway.

    Example: hotswap evaluate test.jsonl --adapter ./risk --label-pattern 'Risk: (\\d)'
    hotswap evaluate test.jsonl --url http://127.0.0.1:8000 --adapter risk --report risk.html
    """
    settings = load_evaluation_settings(
        **{name: value for name, value in given.items() if value not in (None, [])}
    )
    report = run_evaluation(data, settings)
    missed = missed_thresholds(report, settings.thresholds)
    for line in missed:
        _say(line)
    raise typer.Exit(_MISSED if missed else 0)


_evaluate.__annotations__["data"] = Annotated[
    list[Path], typer.Argument(help="Files or folders of held-out examples.", show_default=False)
]
evaluate = with_options(EvaluationSettings, env_prefix=EVALUATION_PREFIX)(_evaluate)


def run_evaluation(data: Sequence[Path], settings: EvaluationSettings) -> EvaluationReport:
    """Everything but the exit code. Raises EvaluationError, DataError, and bases' errors."""
    from adapters.evaluation.evaluate import evaluate as run
    from adapters.evaluation.judging import check_plan
    from adapters.evaluation.kept_answers import KeptAnswers, ResumingAnswerer
    from adapters.evaluation.plan import EvaluationPlan
    from adapters.evaluation.progress import terminal_progress
    from adapters.evaluation.report_files import check_place

    if settings.report is not None:
        check_place(settings.report, force=settings.force)
    examples = read_all(data, settings)
    plan = EvaluationPlan(
        label_pattern=settings.label_pattern,
        labels=settings.labels,
        false_alarm=settings.false_alarm,
        metrics=settings.metrics,
        needed_figures=tuple(name for name, _ in settings.thresholds),
        max_examples=settings.max_examples,
        seed=settings.seed,
        bootstrap_samples=settings.bootstrap_samples,
        worst_examples=settings.worst_examples,
    )
    rule = check_plan(examples, plan).rule if examples else None
    base, adapter, facts = make_answerers(settings)
    names = ", ".join(path.name for path in data)
    key = _asked(settings, rule)
    with KeptAnswers(_kept_path(settings, key), key, force=settings.force, say=_say) as kept:
        if len(kept):
            facts.append(("resumed", f"{len(kept)} answers are those of an interrupted run"))
        with terminal_progress() as stage:
            report = run(
                examples,
                base=ResumingAnswerer(base, "base", kept) if base is not None else None,
                adapter=ResumingAnswerer(adapter, "adapter", kept) if adapter is not None else None,
                plan=plan,
                facts=(("data", names), *facts, *_common_facts(settings)),
                stage=stage,
            )
        _show(report, settings)
        kept.remove()
    return report


def _show(report: EvaluationReport, settings: EvaluationSettings) -> None:
    """The table, the notes, and the report files if they are wanted. Raises EvaluationError."""
    from rich.console import Console

    from adapters.evaluation.report_files import write_report
    from adapters.evaluation.report_text import notes_of, terminal_table

    Console().print(terminal_table(report))
    for note in notes_of(report):
        _say(f"note: {note}")
    if settings.report is not None:
        for path in write_report(report, settings.report, force=settings.force):
            _say(f"wrote {path}")


def _asked(settings: EvaluationSettings, rule: LabelRule | None) -> str:
    """A key of everything that an answer depends on, but for the question."""
    from adapters.evaluation.kept_answers import key_of
    from bases.passport import read_passport

    asked: dict[str, object] = {
        "rule": (rule.pattern, rule.labels) if rule is not None else None,
        "max_new_tokens": settings.max_new_tokens,
        "adapter": settings.adapter,
    }
    if settings.url is not None:
        return key_of({**asked, "url": settings.url})
    folder = _adapter_folder(settings)
    passport = read_passport(_resolved_base(settings), home=settings.home_folder)
    return key_of(
        {
            **asked,
            "base": passport.fingerprint,
            "files": _digests(folder) if folder is not None else None,
            "precision": settings.precision,
        }
    )


def _digests(folder: Path) -> list[tuple[str, str]]:
    """Name and sha256 of each file: an adapter that was trained anew in its place is another one."""
    return [
        (path.name, sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]


def _kept_path(settings: EvaluationSettings, key: str) -> Path:
    """Where answers are kept while they are gathered: beside the report, else in the home."""
    if settings.report is not None:
        return settings.report.with_suffix(".partial.jsonl")
    return settings.home_folder / "evaluations" / f"{key[:16]}.partial.jsonl"


def read_all(data: Sequence[Path], settings: EvaluationSettings) -> list[Example]:
    """Every example of every file. Raises DataError."""
    from adapters.data.read import read_examples
    from adapters.data.settings import load_data_settings

    reading = load_data_settings(columns=settings.columns, chat=settings.chat, system=settings.system)
    return [
        example
        for path in data
        for example in read_examples(
            path, columns=reading.column_map, chat=reading.chat, system=reading.system
        )
    ]


def make_answerers(
    settings: EvaluationSettings,
) -> tuple[Answerer | None, Answerer | None, list[tuple[str, str]]]:
    """(base, adapter, facts about how they are asked). Raises EvaluationError."""
    if settings.url is not None:
        return _through_gateway(settings, settings.url)
    return _through_transformers(settings)


def _through_gateway(
    settings: EvaluationSettings, url: str
) -> tuple[Answerer | None, Answerer | None, list[tuple[str, str]]]:
    from adapters.evaluation.answerers.gateway_answerer import GatewayAnswerer
    from adapters.evaluation.answerers.gateway_http import GatewayHttp

    gateway = GatewayHttp(
        url,
        concurrency=settings.concurrency,
        request_seconds=settings.request_seconds,
        key=os.environ.get("HOTSWAP_API_KEY"),
    )
    wants_tokenizer = not settings.metrics or "perplexity" in settings.metrics
    folder = _resolved_base(settings).path if wants_tokenizer else None

    def answerer(adapter: str | None) -> GatewayAnswerer:
        return GatewayAnswerer(
            gateway, adapter=adapter, max_new_tokens=settings.max_new_tokens, base_folder=folder
        )

    base = answerer(None) if settings.compare_base or settings.adapter is None else None
    adapter = answerer(settings.adapter) if settings.adapter is not None else None
    return base, adapter, [("through", f"the gateway, {settings.concurrency} requests at once")]


def _through_transformers(
    settings: EvaluationSettings,
) -> tuple[Answerer | None, Answerer | None, list[tuple[str, str]]]:
    from adapters.evaluation.answerers.transformers_answerer import TransformersAnswerer
    from adapters.evaluation.answerers.transformers_model import load_model

    folder = _adapter_folder(settings)
    resolved = _resolved_base(settings)
    if folder is not None:
        _check_base(folder, resolved, settings.home_folder)
    loaded = load_model(resolved.path, folder, precision=settings.precision)

    def answerer(name: str, *, adapter: bool) -> TransformersAnswerer:
        return TransformersAnswerer(
            loaded,
            adapter=adapter,
            name=name,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
        )

    base = answerer(settings.base, adapter=False) if settings.compare_base or folder is None else None
    adapter = answerer(_shown_name(folder), adapter=True) if folder is not None else None
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    how = f"transformers, {dtype} on {loaded.model.device.type}, batches of {settings.batch_size}"
    return base, adapter, [("through", how)]


def _adapter_folder(settings: EvaluationSettings) -> Path | None:
    """What --adapter means without a gateway: a folder, or a name that was published on this machine."""
    if settings.adapter is None:
        return None
    folder = Path(settings.adapter).expanduser()
    if folder.exists() or folder.is_absolute() or settings.adapter.startswith("."):
        return folder
    return find_adapter(settings.adapter, home=settings.home_folder).folder


def _resolved_base(settings: EvaluationSettings) -> ResolvedBase:
    from bases.resolve import resolve_base

    return resolve_base(
        settings.base, home=settings.home_folder, revision=settings.base_revision, progress=_say
    )


def _check_base(folder: Path, base: ResolvedBase, home: Path) -> None:
    """Refuse an adapter whose manifest names another base. Adapters made elsewhere have no manifest."""
    from adapters.artefact import MANIFEST_NAME
    from adapters.manifest import parse_manifest
    from bases.passport import read_passport

    path = folder / MANIFEST_NAME
    if not path.is_file():
        return
    trained_on = parse_manifest(path.read_bytes()).base
    if trained_on.fingerprint != read_passport(base, home=home).fingerprint:
        raise EvaluationError(
            f"the adapter {_shown_name(folder)!r} was trained on {trained_on.name!r} (fingerprint "
            f"{trained_on.fingerprint[:16]}), which is not the base {base.name!r}; name its base with --base"
        )


def _shown_name(folder: Path) -> str:
    """A folder's name; for one that is named by its digest also the name above it, as in `risk/3f2a91c0`."""
    folder = folder.absolute()
    return f"{folder.parent.name}/{folder.name}" if _DIGEST8.fullmatch(folder.name) else folder.name


def _common_facts(settings: EvaluationSettings) -> list[tuple[str, str]]:
    from importlib.metadata import version

    facts = [
        ("longest answer", f"{settings.max_new_tokens} tokens, greedy"),
        ("seed", f"{settings.seed}, {settings.bootstrap_samples} bootstrap draws"),
    ]
    if settings.label_pattern is not None:
        facts.append(("label pattern", settings.label_pattern))
    names = ("transformers", "peft", "torch", "scikit-learn", "sacrebleu")
    return [*facts, ("versions", ", ".join(f"{name} {version(name)}" for name in names))]


def missed_thresholds(report: EvaluationReport, thresholds: Sequence[tuple[str, float]]) -> list[str]:
    """One line for each threshold that the adapter (else the base) misses; that a figure is there is the plan's."""
    missed = []
    for name, wanted in thresholds:
        figure = report.figure(name)
        score = figure.of(report.subject) if figure is not None else None
        value = score.value if score is not None else None
        higher = figure is None or figure.higher_is_better
        enough = value is not None and (value >= wanted if higher else value <= wanted)
        if not enough:
            shown = "not measured" if value is None else f"{value:.4g}"
            side = "below" if higher else "above"
            missed.append(f"{name} of the {report.subject} is {shown}, {side} the {wanted:g} asked for")
    return missed


def _say(text: str) -> None:
    """A line for the person at the terminal, apart from the table."""
    sys.stderr.write(text + "\n")
