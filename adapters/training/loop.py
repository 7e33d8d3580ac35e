"""The course of one run: a prepared model and its trainer from the first evaluation to the best weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from adapters.training.callbacks.best_weights import BestWeights
from adapters.training.callbacks.cadence import Cadence
from adapters.training.callbacks.early_stopping import EarlyStopping
from adapters.training.callbacks.ema import Ema
from adapters.training.callbacks.interruption import Interruption
from adapters.training.callbacks.parameters import put_parameters, trained_parameters
from adapters.training.callbacks.progress import ProgressBar
from adapters.training.callbacks.tensorboard import TensorBoardMetrics
from adapters.training.methods.method import PreparedModel
from adapters.training.outcome import EndReason, ValidationScore
from adapters.training.processes import from_first_process
from adapters.training.run_folder import Resumption
from adapters.training.schedule import RunClock
from adapters.training.trainer import AdapterTrainer

_EVALUATION_SHARE = 0.15  # of the time, where it is limited and nobody said how often to evaluate


class Loop:
    """One run of a trainer. Figures are there after `run`."""

    def __init__(
        self,
        trainer: AdapterTrainer,
        prepared: PreparedModel,
        clock: RunClock,
        *,
        best: BestWeights,
        ema: Ema | None,
        stopping: EarlyStopping,
        cadence: Cadence,
        interruption: Interruption,
        progress: ProgressBar,
        curves: TensorBoardMetrics,
        resumption: Resumption | None,
        rebuild: Callable[[], PreparedModel],
    ) -> None:
        self.trainer = trainer
        self.prepared = prepared
        self.clock = clock
        self.best = best
        self.ema = ema
        self.stopping = stopping
        self.cadence = cadence
        self.interruption = interruption
        self.progress = progress
        self.curves = curves
        self.resumption = resumption
        self._rebuild = rebuild
        self.before: ValidationScore | None = None
        self.after: ValidationScore | None = None

    def run(self, *, budget_seconds: float | None, end_seconds: float) -> None:
        """Train to the end and leave the best weights in the model (the averaged or the last without evaluation).

        Ctrl-C and SIGTERM end it when the step is saved, with KeyboardInterrupt or SystemExit.
        `budget_seconds` is what is left for all of it; `end_seconds` of them are for what comes afterwards.
        """
        checkpoint = self.resumption.checkpoint if self.resumption is not None else None
        began = time.monotonic()
        if checkpoint is None:
            self.before = _score(self.trainer.evaluate_alone())
        else:
            self.trainer.restore_callbacks(checkpoint)
            self.before = _as_score(self.cadence.before)
        self.cadence.before = None if self.before is None else _as_tuple(self.before)
        if budget_seconds is not None:
            self._lay_over_time(budget_seconds - (time.monotonic() - began), end_seconds)
        try:
            if not self.cadence.finished:
                with self.interruption.heard(alone=self.trainer.args.world_size == 1):
                    self.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            elif checkpoint is not None:
                self.trainer.load_finished(checkpoint)
        finally:
            self.progress.close()
            self.curves.close()
        model = self.trainer.model
        if not self.best.put_into(model) and self.ema is not None:
            self.ema.put_into(model)
        self.after = _as_score(self.best.score)
        if self.trainer.is_sharded:
            # The export wants a whole model: build one anew and give it what was learned.
            values = self.trainer.whole_weights()
            if values:
                self.prepared = self._rebuild()
                put_parameters(self.prepared.model, values)

    def _lay_over_time(self, seconds: float, end_seconds: float) -> None:
        """Give training what `seconds` leave beside the last evaluation, which takes what the first one took."""
        args = self.trainer.args
        evaluation_seconds = from_first_process(self.trainer.evaluation_seconds, args)
        # A run that has no time left trains for a second, so that there is something to export.
        left = max(1.0, from_first_process(seconds, args) - evaluation_seconds - end_seconds)
        self.clock.budget_seconds = self.clock.before_seconds + left
        if evaluation_seconds:
            self.cadence.parts = max(
                1, min(self.cadence.parts, int(_EVALUATION_SHARE * left / evaluation_seconds))
            )

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        return int(self.trainer.state.global_step)

    @property
    def best_step(self) -> int:
        """The step whose weights the model has now."""
        return self.best.step or self.steps

    @property
    def train_loss(self) -> float:
        """Mean training loss of the last tenth of the logged steps."""
        losses = [logs["loss"] for logs in self.trainer.state.log_history if "loss" in logs]
        tail = losses[-max(1, len(losses) // 10) :]
        return sum(tail) / len(tail) if tail else float("nan")

    @property
    def end_reason(self) -> EndReason:
        """Why it ended."""
        if self.stopping.stopped:
            return "no more gain"
        return "time is up" if self.clock.is_over() else "all steps done"

    @property
    def trained_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for _, parameter in trained_parameters(self.trainer.model))

    @property
    def tokens(self) -> int:
        """Tokens trained on, over all processes."""
        return self.trainer.total_tokens

    @property
    def tokens_per_second(self) -> float:
        """Over the whole run, evaluations left out."""
        return self.trainer.tokens_per_second


def _score(metrics: Mapping[str, float]) -> ValidationScore | None:
    if not metrics:
        return None
    return ValidationScore(metrics["eval_loss"], metrics["eval_perplexity"], metrics["eval_token_accuracy"])


def _as_score(values: Sequence[float] | None) -> ValidationScore | None:
    return None if values is None else ValidationScore(*values)


def _as_tuple(score: ValidationScore) -> tuple[float, float, float]:
    return score.loss, score.perplexity, score.token_accuracy
