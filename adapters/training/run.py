"""From sources to a published adapter: the whole of `hotswap train`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.data.encode import Encoded, ExampleEncoder, encode_all
from adapters.data.prepare import PreparedData, prepare_data
from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.errors import TrainingError, TrainingSettingsError
from adapters.training.manifest_record import manifest_record
from adapters.training.methods.method import PreparedModel
from adapters.training.methods.registry import METHODS
from adapters.training.outcome import TrainOutcome
from adapters.training.preflight import Preflight, check_run
from adapters.training.processes import Processes, join_processes
from adapters.training.run_folder import (
    Resumption,
    RunRecord,
    expect_same,
    find_resumption,
    new_run_folder,
    settings_to_resume_with,
)
from adapters.training.settings import TrainSettings
from adapters.training.way_on import way_on_said
from bases.disk import why_unwritten
from bases.errors import HotswapError
from bases.passport import Passport, read_passport
from bases.place import made_in_place
from bases.resolve import ResolvedBase, resolve_base

Push = Callable[[Path, str], str]
Say = Callable[[str], None]
_END_SECONDS = 10.0  # kept free for the export when time is limited, beside what the evaluation took


def train_adapter(
    sources: Sequence[DataSource],
    *,
    name: str,
    settings: TrainSettings,
    data_settings: DataSettings,
    say: Say,
    console: Any = None,
    push: Push | None = None,
    started_at: float | None = None,
) -> TrainOutcome:
    """Train an adapter called `name` on `sources` and publish it under the settings' home.

    `say` is told what happens, a line at a time; `console` is rich's for a progress bar. `push` registers the
    published folder under a name with a gateway and returns what is live. With a resumption in the settings,
    `sources` may be empty: the run knows its own. `started_at`, on the clock time.monotonic, is when limited time
    began, if that was before this call. Raises DataError, TrainingError (settings and all), ExportError.
    """
    started_at = time.monotonic() if started_at is None else started_at
    resumption = None
    if settings.resume is not None:
        resumption = find_resumption(settings.resume, home=settings.home, name=name)
        if resumption.record.name != name:
            raise TrainingSettingsError(
                f"--resume: {resumption.folder} is a run of {resumption.record.name!r}, not of {name!r}; "
                f"give --name {resumption.record.name}"
            )
        settings = settings_to_resume_with(resumption.record, settings)
        sources, data_settings = _recorded_data(resumption.record, sources, data_settings)
    return _Run(
        tuple(sources), name, settings, data_settings, say, console, push, started_at, resumption
    ).finish()


@dataclass(slots=True)
class _Data:
    prepared: PreparedData
    train: Encoded
    validation: Encoded | None
    encoder: ExampleEncoder


class _Run:
    """One run, stage after stage."""

    def __init__(
        self,
        sources: tuple[DataSource, ...],
        name: str,
        settings: TrainSettings,
        data_settings: DataSettings,
        say: Say,
        console: Any,
        push: Push | None,
        started_at: float,
        resumption: Resumption | None,
    ) -> None:
        self.sources = sources
        self.name = name
        self.settings = settings
        self.data_settings = data_settings
        self.method = METHODS[settings.method]
        self.started_at = started_at
        self.resumption = resumption
        self.push = push
        self.notes: list[str] = []
        on_cpu = settings.device == "cpu" or not _has_gpu()
        self.processes: Processes = join_processes(on_cpu=on_cpu)
        self.say: Say = say if self.processes.is_first else _silent
        self.console = console if self.processes.is_first else None

    def finish(self) -> TrainOutcome:
        """Do all of it."""
        (base, passport, flight), prepared = self._look_before()
        data = self._encode(prepared, base, flight)
        folder = self._open_folder(passport, data)
        with way_on_said(folder, self.say):
            loop = self._build(base, passport, flight, data, folder)
            self._train(loop)
            outcome = self._export(base, passport, flight, data, folder, loop)
        return self._push(outcome)

    # Stages

    def _look_before(self) -> tuple[tuple[ResolvedBase, Passport, Preflight], PreparedData]:
        """Base, settings and data; what is wrong with any of them is said together."""
        errors: list[HotswapError] = []
        checked, prepared = None, None
        try:
            checked = self._check()
        except HotswapError as error:
            errors.append(error)
        try:
            prepared = prepare_data(self.sources, self.data_settings, progress=self.say)
        except HotswapError as error:
            errors.append(error)
        if checked is not None and prepared is not None:
            return checked, prepared
        if len(errors) == 1:
            raise errors[0]
        raise TrainingSettingsError("\n".join(map(str, errors)))

    def _check(self) -> tuple[ResolvedBase, Passport, Preflight]:
        base = resolve_base(self.settings.base, home=self.settings.home, progress=self.say)
        passport = read_passport(base, home=self.settings.home, progress=self.say)
        flight = check_run(self.name, self.settings, base, passport, num_processes=self.processes.count)
        self.say(
            f"Training {self.method.name} on {base.name} in {flight.precision.precision}: "
            f"{flight.precision.reason}"
        )
        return base, passport, flight

    def _encode(self, prepared: PreparedData, base: ResolvedBase, flight: Preflight) -> _Data:
        for warning in prepared.warnings:
            self.say(f"Warning: {warning}")
        encoder = ExampleEncoder(base.path, max_length_tokens=flight.max_length_tokens)
        train = encode_all(prepared.train, encoder)
        limit = self.settings.eval_examples
        held_out = prepared.validation if limit is None else _spread(prepared.validation, limit)
        validation = encode_all(held_out, encoder) if held_out else None
        for warning in train.warnings:
            self.say(f"Warning: {warning}")
        if train.num_dropped:
            self.say(
                f"Warning: {train.num_dropped} training examples are longer than {flight.max_length_tokens} tokens "
                "and were left out (--max-length-tokens)"
            )
        self.say(
            f"{len(train.examples)} training and {len(held_out)} validation examples, "
            f"{sum(len(one.input_ids) for one in train.examples)} tokens to train on"
        )
        return _Data(prepared, train, validation, encoder)

    def _open_folder(self, passport: Passport, data: _Data) -> Path:
        record = RunRecord(
            name=self.name,
            settings=self.settings.model_dump(mode="json", exclude={"resume", "push"}),
            data_fingerprint=data.prepared.fingerprint,
            base_fingerprint=passport.fingerprint,
            num_processes=self.processes.count,
            sources=tuple((str(one.path.absolute()), one.task, one.weight) for one in self.sources),
            data_settings=self.data_settings.model_dump(mode="json"),
        )
        if self.resumption is not None:
            expect_same(self.resumption, record)
            for broken in self.resumption.passed_over:
                self.say(f"{broken.name} is not whole and is passed over")
            self.say(f"Going on from {self.resumption.checkpoint}")
            return self.resumption.folder

        def make() -> Path:
            folder = new_run_folder(self.settings.home, self.name)
            record.write(folder)
            return folder

        folder: Path = self.processes.share(make)
        self.say(f"Run folder: {folder}")
        return folder

    def _build(
        self, base: ResolvedBase, passport: Passport, flight: Preflight, data: _Data, folder: Path
    ) -> Any:
        from adapters.training.build import build_loop

        return build_loop(
            settings=self.settings,
            method=self.method,
            base=base,
            facts=passport.facts,
            flight=flight,
            train=data.train.examples,
            validation=data.validation.examples if data.validation else (),
            tokenizer=data.encoder.tokenizer,
            task_weights=data.prepared.task_weights,
            folder=folder,
            processes=self.processes,
            resumption=self.resumption,
            say=self.say,
            console=self.console,
            note=self.notes.append,
        )

    def _train(self, loop: Any) -> None:
        budget = None
        if self.settings.max_minutes is not None:
            used = time.monotonic() - self.started_at
            budget = self.settings.max_minutes * 60.0 - used
        loop.run(budget_seconds=budget, end_seconds=_END_SECONDS)

    def _export(
        self,
        base: ResolvedBase,
        passport: Passport,
        flight: Preflight,
        data: _Data,
        folder: Path,
        loop: Any,
    ) -> TrainOutcome:
        settings = self.settings
        outcome = TrainOutcome(
            name=self.name,
            method=self.method.name,
            base=base.name,
            run_folder=folder,
            adapter_folder=folder / "adapter",
            digest=None,
            why_not_servable=self.method.why_not,
            before=loop.before,
            after=loop.after,
            train_loss=loop.train_loss,
            best_step=loop.best_step,
            steps=loop.steps,
            epochs=loop.steps * settings.batch_size / len(data.train.examples),
            end_reason=loop.end_reason,
            num_train_examples=len(data.prepared.train),
            num_validation_examples=len(data.prepared.validation),
            trained_parameters=loop.trained_parameters,
            tokens=loop.tokens,
            seconds=time.monotonic() - self.started_at,
            tokens_per_second=loop.tokens_per_second,
            precision=flight.precision.precision,
            device=flight.hardware.device,
            notes=tuple(self.notes),
        )
        if not self.processes.is_first:
            return outcome
        if not self.method.servable:
            outcome = replace(outcome, adapter_folder=_unused(folder / "adapter"))
            with made_in_place(outcome.adapter_folder, progress=self.say) as partial:
                loop.prepared.model.save_pretrained(partial)
            self.say(f"Not published: {self.method.why_not}")
        else:
            outcome = self._publish(base, passport, data, folder, loop.prepared, outcome)
        outcome = replace(outcome, seconds=time.monotonic() - self.started_at)
        self._note(outcome)
        return outcome

    def _note(self, outcome: TrainOutcome) -> None:
        """Write the figures down. The adapter is finished: that there is no room for them is no failure."""
        partial = outcome.run_folder / ".outcome.json.partial"
        try:
            partial.write_text(json.dumps(outcome.to_dict(), indent=2) + "\n", encoding="utf-8")
            partial.replace(outcome.run_folder / "outcome.json")
        except OSError as error:
            self.say(f"Warning: the figures cannot be kept in {outcome.run_folder}: {why_unwritten(error)}")

    def _push(self, outcome: TrainOutcome) -> TrainOutcome:
        if self.push is None or outcome.digest is None:
            return outcome
        try:
            return replace(outcome, pushed=self.push(outcome.adapter_folder, self.name))
        except HotswapError as error:
            raise TrainingError(
                f"The adapter is finished ({outcome.adapter_folder}), but was not loaded: {error} "
                f"Then: hotswap adapters push {self.name} {outcome.adapter_folder}"
            ) from error

    def _publish(
        self,
        base: ResolvedBase,
        passport: Passport,
        data: _Data,
        folder: Path,
        prepared: PreparedModel,
        outcome: TrainOutcome,
    ) -> TrainOutcome:
        from adapters.export.export import export_adapter
        from adapters.export.publish import publish_adapter

        self.say("Exporting the adapter and trying it on the base")
        report = export_adapter(
            prepared.model,
            method=prepared.method,
            base=base,
            passport=passport,
            folder=_unused(folder / "adapter"),
            probe_prompts=_probe_prompts(data, self.settings.probe_prompts),
            training=manifest_record(outcome, data.prepared, self.settings, self.sources),
            max_error=self.settings.max_export_error,
            initial_adapter_folder=prepared.initial_adapter_folder,
            probe_cases=self.settings.probe_prompts,
        )
        place = publish_adapter(report.folder, home=self.settings.home, name=self.name)
        return replace(
            outcome, adapter_folder=place, digest=report.digest, conversions=tuple(report.conversions)
        )


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _silent(_: str) -> None:
    """For the processes that do not speak."""


def _recorded_data(
    record: RunRecord, sources: Sequence[DataSource], data_settings: DataSettings
) -> tuple[Sequence[DataSource], DataSettings]:
    """The run's own sources and data settings, where none were given now."""
    if not sources:
        sources = [DataSource(Path(path), task, weight) for path, task, weight in record.sources]
    if not data_settings.model_fields_set and record.data_settings is not None:
        data_settings = DataSettings.model_validate(record.data_settings)
    return sources, data_settings


def _spread(examples: Sequence[Any], count: int) -> Sequence[Any]:
    """`count` of the examples, evenly spread over them."""
    if count >= len(examples):
        return examples
    return [examples[math.floor(index * len(examples) / count)] for index in range(count)]


def _probe_prompts(data: _Data, count: int) -> list[list[int]]:
    """Prompts of held-out examples as the gateway would send them, else of training examples."""
    examples = data.prepared.validation or data.prepared.train
    prompts = [data.encoder.encode_prompt(example) for example in _spread(examples, 2 * count)]
    fitting = [prompt for prompt in prompts if 0 < len(prompt) < data.encoder.max_length_tokens]
    return fitting[:count]


def _unused(folder: Path) -> Path:
    """`folder`, or one beside it when a run that was killed while exporting left it there."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
