"""From an original base and its quantised form to a published adapter that brings the one back to the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.export.export import export_adapter
from adapters.export.factors import Factors, joined
from adapters.export.publish import publish_adapter
from adapters.export.trained import oriented
from adapters.name import parse_alias
from adapters.published import find_adapter
from adapters.target import TargetBase, describe_target
from adapters.training.base_model import load_training_model
from bases.passport import Passport, read_passport
from bases.progress import Progress, log_progress
from bases.resolve import ResolvedBase
from quantize.quality.figures import Figure, QualityFigures
from quantize.quality.measure import measure_quality
from quantize.quality.served_model import load_as_served
from quantize.recovery.distil import distil
from quantize.recovery.errors import RecoveryError
from quantize.recovery.gain import gain_of, is_sure
from quantize.recovery.layers import closed_form
from quantize.recovery.manifest_record import manifest_record
from quantize.recovery.outcome import Distillation, RecoveryOutcome
from quantize.recovery.rescaling import has_moved_scales
from quantize.recovery.settings import RecoverySettings
from quantize.recovery.student import no_factors, put_on, read_factors
from quantize.recovery.task import TaskAdapter, merge_into, read_task

_PROBE_TOKENS = 48
_PROBE_CASES = 16


def make_recovery(
    quantised: ResolvedBase,
    original: ResolvedBase,
    *,
    rows: Sequence[Sequence[int]],
    held_out: Sequence[Sequence[int]],
    settings: RecoverySettings,
    home: Path,
    name: str | None = None,
    progress: Progress = log_progress,
) -> RecoveryOutcome:
    """Make a LoRA for `quantised` that answers more like `original`, and publish it below `home` if it pays.

    `rows` are calibration rows of token ids, all of one length; `held_out` rows share no example with them and
    decide: the adapter is published as `name` (else the settings') where the divergence from the original falls on
    them by more than the uncertainty of a paired bootstrap. Otherwise the outcome has the figures and no folder.
    Raises RecoveryError for bases that do not belong together or for too few rows, ExportError where the adapter
    cannot be served.
    """
    return _Recovery(quantised, original, rows, held_out, settings, home, name, progress).finish()


def check_wishes(settings: RecoverySettings, *, home: Path) -> None:
    """Look, before the long part, at the names in the settings: raises AdapterNameError, AdapterNotFoundError."""
    parse_alias(settings.recover_name)
    if settings.recover_with is not None:
        find_adapter(settings.recover_with, home=home)


@dataclass(frozen=True, slots=True)
class _Made:
    """Factors of each module, and how they came about."""

    factors: Mapping[str, Factors]
    closed_form_share: float | None
    distillation: Distillation | None


class _Recovery:
    """One recovery, stage after stage."""

    def __init__(
        self,
        quantised: ResolvedBase,
        original: ResolvedBase,
        rows: Sequence[Sequence[int]],
        held_out: Sequence[Sequence[int]],
        settings: RecoverySettings,
        home: Path,
        name: str | None,
        progress: Progress,
    ) -> None:
        self.started_at = time.monotonic()
        self.base, self.original = quantised, original
        self.rows, self.held_out = rows, held_out
        self.settings, self.home, self.progress = settings, home, progress
        self.name = parse_alias(name or settings.recover_name)
        self.passport: Passport = read_passport(quantised, home=home, progress=progress)
        self.target: TargetBase = describe_target(quantised, self.passport)
        self.modules = {
            module: shape
            for module, shape in self.target.linear_modules.items()
            if module not in self.target.unserved_modules
        }
        original_passport = read_passport(original, home=home, progress=progress)
        self._check(original_passport)
        self.task: TaskAdapter | None = None
        if settings.recover_with is not None:
            target = describe_target(original, original_passport)
            self.task = read_task(settings.recover_with, target=target, home=home)

    def finish(self) -> RecoveryOutcome:
        """Do all of it."""
        settings = self.settings
        self.progress(f"Loading {self.original.name} and {self.base.name}")
        teacher = load_as_served(self.original)
        self._refuse_moved_scales(teacher)
        merge_into(teacher, self.task)
        before, losses_before = self._measure(teacher, {})
        made = self._make(teacher)
        after, losses_after = self._measure(teacher, made.factors)
        del teacher
        gain = gain_of(losses_before, losses_after, seed=settings.recover_seed)
        folder, digest = None, None
        if is_sure(gain):
            folder, digest = self._publish(made, before, after, gain)
        return RecoveryOutcome(
            name=self.name,
            folder=folder,
            digest=digest,
            method=settings.recover_method,
            rank=settings.recover_rank,
            with_adapter=self.task.label if self.task else None,
            before=before,
            after=after,
            gain_nats=gain,
            closed_form_share=made.closed_form_share,
            distillation=made.distillation,
            num_rows=len(self.rows),
            seconds=time.monotonic() - self.started_at,
        )

    # Stages

    def _check(self, original: Passport) -> None:
        theirs = original.facts.linear_modules
        if dict(theirs) != dict(self.target.linear_modules):
            raise RecoveryError(
                f"{self.original.name} is not what {self.base.name} was made from: their layers differ in name or "
                "shape. Name the base that was quantised."
            )
        if original.parts.tokenizer != self.passport.parts.tokenizer:
            raise RecoveryError(
                f"{self.original.name} and {self.base.name} have different tokenizers, so the same row is another "
                "text to each. Name the base that was quantised."
            )
        if len(self.held_out) < 2:
            raise RecoveryError(
                f"{len(self.held_out)} held-out rows cannot tell whether a recovery adapter pays; at least 2 are "
                "needed. Give more text (--data), or shorter rows."
            )
        if not self.rows or len(set(map(len, self.rows))) != 1:
            raise RecoveryError(
                f"{len(self.rows)} calibration rows of {len(set(map(len, self.rows)))} lengths: at least one row "
                "is needed, and all of one length."
            )

    def _refuse_moved_scales(self, teacher: Any) -> None:
        """A task adapter of the original does not fit a base whose layers see other inputs."""
        if self.task is None:
            return
        served = load_as_served(self.base)
        moved = [
            module
            for module in self.task.factors
            if has_moved_scales(teacher.get_submodule(module).weight, served.get_submodule(module).weight)
        ]
        if moved:
            raise RecoveryError(
                f"{self.base.name} was quantised with scales moved between its layers (SmoothQuant, AWQ): in "
                f"{len(moved)} layers ({moved[0]}, ...) the inputs are not those that {self.task.label} was "
                "trained on. Quantise without moving scales, or merge the adapter into the base first."
            )

    def _make(self, teacher: Any) -> _Made:
        settings = self.settings
        factors, share = no_factors(self.modules), None
        if settings.recover_method != "distil":
            factors, share = self._closed_form(teacher)
        if settings.recover_method == "closed-form":
            return _Made(factors, share, None)
        student = load_training_model(self.base, dtype=_float32()).model
        merge_into(student, self.task)
        adapted = put_on(
            student,
            factors,
            rank=settings.recover_rank,
            linear_modules=self.target.linear_modules,
            seed=settings.recover_seed,
        )
        device = _device()
        train, check = _split(self.rows)
        distillation = distil(
            teacher.to(device),
            adapted.to(device),
            train,
            check_rows=check,
            learning_rate=settings.recover_learning_rate,
            budget_seconds=60.0 * settings.recover_minutes,
            max_steps=settings.recover_steps,
            batch_tokens=settings.recover_batch_tokens,
            seed=settings.recover_seed,
            progress=self.progress,
        )
        teacher.to("cpu")
        return _Made(read_factors(adapted, self.modules), share, distillation)

    def _closed_form(self, teacher: Any) -> tuple[dict[str, Factors], float]:
        served = load_as_served(self.base)
        merge_into(served, self.task)
        weights = {}
        for module in self.modules:
            layer = served.get_submodule(module)
            weights[module] = oriented(layer, layer.weight.detach())
        count = max(1, self.settings.recover_moment_tokens // len(self.rows[0]))
        solved = closed_form(
            teacher,
            served,
            weights,
            self.rows[:count],
            rank=self.settings.recover_rank,
            progress=self.progress,
        )
        self.progress(f"The closed form takes {solved.mean_share:.0%} off the squared error of a layer")
        return dict(solved.factors), solved.mean_share

    def _measure(self, teacher: Any, recovery: Mapping[str, Factors]) -> tuple[QualityFigures, list[float]]:
        """Figures and divergence of each held-out row, of what is served with the task adapter and `recovery`."""
        what = "with the recovery adapter" if recovery else "as it is"
        self.progress(f"Measuring {self.base.name} {what} on {len(self.held_out)} held-out rows")
        served = load_as_served(self.base)
        task = self.task.factors if self.task else {}
        parts = [[each[module] for each in (task, recovery) if module in each] for module in self.modules]
        factors = {module: joined(given) for module, given in zip(self.modules, parts, strict=True) if given}
        if factors:
            rank = max(item.rank for item in factors.values())
            served = put_on(served, factors, rank=rank, linear_modules=self.target.linear_modules).eval()
        divergences: list[float] = []
        figures = measure_quality(
            teacher, served, self.held_out, progress=self.progress, row_kl_nats=divergences
        )
        return figures, divergences

    def _publish(
        self, made: _Made, before: QualityFigures, after: QualityFigures, gain: Figure
    ) -> tuple[Path, str]:
        self.progress("Exporting the adapter and trying it on the base")
        model = put_on(
            load_training_model(self.base, dtype=_float32()).model,
            made.factors,
            rank=self.settings.recover_rank,
            linear_modules=self.target.linear_modules,
        )
        with tempfile.TemporaryDirectory(prefix="hotswap-recovery-") as passing:
            report = export_adapter(
                model,
                method=f"recovery ({self.settings.recover_method})",
                base=self.base,
                passport=self.passport,
                folder=Path(passing) / "adapter",
                probe_prompts=[list(row[:_PROBE_TOKENS]) for row in self.held_out],
                training=manifest_record(
                    self.settings,
                    original=self.original.name,
                    base=self.base.name,
                    rows=self.rows,
                    with_adapter=self.task.label if self.task else None,
                    before=before,
                    after=after,
                    gain=gain,
                    closed_form_share=made.closed_form_share,
                    distillation=made.distillation,
                ),
                probe_cases=_PROBE_CASES,
            )
            return publish_adapter(report.folder, home=self.home, name=self.name), report.digest


def _split(
    rows: Sequence[Sequence[int]],
) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]:
    """(rows to learn from, rows to choose the best state by): a tenth of them, four at most; none of under ten."""
    apart = min(4, len(rows) // 10)
    return rows[: len(rows) - apart], rows[len(rows) - apart :]


def _float32() -> Any:
    import torch

    return torch.float32


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
