"""TRL's SFTTrainer with batches from a plan, loss over learned tokens alone, and whole checkpoints."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer

from adapters.data.encode import EncodedExample
from adapters.errors import TrainingError
from adapters.training.batches import StepBatches
from adapters.training.callbacks.ema import Ema
from adapters.training.callbacks.parameters import trained_parameters
from adapters.training.callbacks.state import KeepsState
from adapters.training.callbacks.update_size import UpdateSize
from adapters.training.checkpoint import STAGING_NAME, place_checkpoint, remove_old, seal_checkpoint
from adapters.training.head import HITS, LOG_PROBS, add_learned_head
from adapters.training.loss import num_learned_tokens, token_mean_loss
from adapters.training.pace import Pace
from adapters.training.schedule import RunClock
from bases.disk import disk_errors, why_unwritten

WEIGHTS_NAME = "trained.safetensors"


class AdapterTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains what requires gradients in a prepared model on encoded examples.

    One pass of transformers' loop is the whole run: `batches` says what every step sees. The loss of a step is the
    sum over its learned tokens divided by their weight, whatever the number of parts and processes.
    """

    def __init__(
        self,
        model: Any,
        args: SFTConfig,
        *,
        train: Sequence[EncodedExample],
        validation: Sequence[EncodedExample],
        validation_batches: Sequence[Sequence[int]],
        batches: StepBatches,
        collate: Callable[[list[EncodedExample]], dict[str, Any]],
        tokenizer: Any,
        clock: RunClock,
        rate_factor: Callable[[float], float],
        optimizer_factory: Callable[[Any, Any, dict[str, Any]], Any] | None = None,
        extra_loss: Callable[[Any], Any] | None = None,
        keep_checkpoints: int = 2,
        callbacks: Iterable[Any] = (),
    ) -> None:
        """`rate_factor` maps progress in [0, 1] to the share of the peak learning rate."""
        self._train = train
        self._validation = validation
        self._validation_batches = validation_batches
        self._batches = batches
        self._collate = collate
        self._clock = clock
        self._rate_factor = rate_factor
        self._optimizer_factory = optimizer_factory
        self._extra_loss = extra_loss
        self._keep_checkpoints = keep_checkpoints
        self.optimizer: Any = None
        self.lr_scheduler: Any = None
        self.control: Any = None
        self._pace = Pace()
        self._staging: Path | None = None
        self.evaluation_seconds = 0.0
        # SFTTrainer wants a datasets.Dataset; the examples stay where they are, it holds their numbers.
        super().__init__(
            model=model,
            args=args,
            data_collator=self._collate_rows,
            train_dataset=Dataset.from_dict({"example": range(len(train))}),
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)  # the progress callback speaks
        self.model_accepts_loss_kwargs = True  # compute_loss divides by the items of the whole step
        inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        add_learned_head(inner)

    # Batches

    def get_train_dataloader(self) -> Any:
        """The micro-batches of this process. Not prepared by accelerate, which would deal them out again."""
        return DataLoader(self.train_dataset, batch_sampler=self._batches, collate_fn=self._collate_rows)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the pace is counted from here."""
        self._pace.start()
        return super().train(*args, **kwargs)

    def _collate_rows(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        return self._collate([self._train[row["example"]] for row in rows])

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        """Weight of the learned tokens of a step, over all its parts and processes."""
        weight = torch.zeros((), dtype=torch.float64)
        for batch in batch_samples:
            learned = batch["labels"][..., 1:] != -100
            weights = batch.get("loss_weights")
            weight += learned.sum() if weights is None else weights[..., 1:][learned].double().sum()
        weight = weight.to(device)
        if self.args.world_size > 1:
            weight = self.accelerator.reduce(weight, "sum")
        return weight.clamp(min=1e-9).float()  # a step without a learned token has a loss of 0

    # Loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Share of this part in the loss of the whole step."""
        weights = inputs.pop("loss_weights", None)
        log_probs = model(**inputs, learned_only=True)[LOG_PROBS]
        loss = token_mean_loss(log_probs, inputs["labels"], weights, num_items_in_batch)
        # The gradients of all processes are averaged, the divisor counts the tokens of all of them.
        loss = loss * self.accelerator.num_processes
        self._pace.count(inputs)
        if self._extra_loss is not None:
            loss = loss + self._extra_loss(self.accelerator.unwrap_model(model)) / (
                self.current_gradient_accumulation_steps
            )
        return (loss, None) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002
        """Not counted: transformers goes through all parameters for it at every step."""
        return 0

    # Optimiser and learning rate

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW on what is trained, grouped by the method where it wants to."""
        if self._optimizer_factory is None:
            return super().create_optimizer(model)
        if self.optimizer is None:
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model or self.model)
            self.optimizer = self._optimizer_factory(model or self.model, optimizer_class, options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002
        """The rate in the middle of the next step, as the run's clock places it."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: self._rate_factor(self._clock.progress(step + 0.5))
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # Evaluation

    def evaluate(
        self,
        eval_dataset: Any = None,  # noqa: ARG002
        ignore_keys: Any = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss, perplexity and token accuracy over all learned validation tokens, however they are batched."""
        if not self._validation:
            return {}
        ema = next((one for one in self.callback_handler.callbacks if isinstance(one, Ema)), None)
        with ema.applied(self.model) if ema is not None else nullcontext():
            metrics = self._measure(metric_key_prefix)
            self.log(dict(metrics))
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_alone(self) -> dict[str, float]:
        """The metrics before the first step; logged, but no callback decides by them."""
        if not self._validation:
            return {}
        metrics = self._measure("eval")
        self.log(dict(metrics))
        return metrics

    def _measure(self, prefix: str) -> dict[str, float]:
        started = time.monotonic()
        was_training = self.model.training
        # Without training the model is not wrapped; all processes have the same weights then.
        model = self.model_wrapped
        model.eval()
        totals = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        with torch.no_grad(), self.accelerator.autocast():
            for batch, counts in self._own_validation_batches():
                inputs = self._prepare_inputs(self._collate([self._validation[index] for index in batch]))
                inputs.pop("loss_weights", None)
                found = model(**inputs, learned_only=True, count_hits=True)
                if counts:
                    totals[0] -= found[LOG_PROBS].double().sum()
                    totals[1] += num_learned_tokens(inputs["labels"])
                    totals[2] += found[HITS]
        if self.args.world_size > 1:
            totals = self.accelerator.reduce(totals, "sum")
        model.train(was_training)
        self.evaluation_seconds = time.monotonic() - started
        self._pace.leave_out(self.evaluation_seconds)
        nll, num_tokens, num_correct = totals.tolist()
        loss = nll / max(1.0, num_tokens)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The validation loss is {loss} at step {self.state.global_step}. {self._remedy()}"
            )
        return {
            f"{prefix}_loss": loss,
            f"{prefix}_perplexity": math.exp(min(loss, 700.0)),  # a float ends at e^709
            f"{prefix}_token_accuracy": num_correct / max(1.0, num_tokens),
            f"{prefix}_tokens": num_tokens,
            f"{prefix}_seconds": self.evaluation_seconds,
        }

    def _own_validation_batches(self) -> Iterator[tuple[Sequence[int], bool]]:
        """(batch, whether it counts) of this process: equally many for all, since sharded models work together."""
        processes, own = self.args.world_size, self.args.process_index
        rounds = math.ceil(len(self._validation_batches) / processes)
        for turn in range(rounds):
            index = turn * processes + own
            counts = index < len(self._validation_batches)
            yield self._validation_batches[index if counts else 0], counts

    # Logs

    @property
    def total_tokens(self) -> int:
        """Tokens trained on in the run so far, over all processes, padding left out."""
        return self._pace.total_tokens

    @property
    def tokens_per_second(self) -> float:
        """Mean over all steps of the run so far, evaluations left out."""
        return self._pace.total_tokens / self._pace.total_seconds if self._pace.total_seconds else 0.0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002
        """Add what we measure to transformers' logs. Raises TrainingError when the loss is no number any more."""
        if "loss" in logs:
            logs["tokens_per_second"] = self._pace.take(self.accelerator, self.args)
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, UpdateSize) and callback.value is not None:
                    logs["update_size"] = callback.value
            if not math.isfinite(logs["loss"]):
                raise TrainingError(
                    f"The loss is {logs['loss']} at step {self.state.global_step}. {self._remedy()}"
                )
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def _remedy(self) -> str:
        return f"Start anew with a lower --learning-rate (it was {self.args.learning_rate:g}) or --precision fp32."

    # Checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write into a folder beside, then put it in place by one rename."""
        root = Path(self.args.output_dir)
        self._staging = root / STAGING_NAME
        staged = self._staging / f"checkpoint-{self.state.global_step}"
        is_first = self.is_world_process_zero()
        try:
            with disk_errors():
                if is_first:
                    shutil.rmtree(self._staging, ignore_errors=True)
                    staged.mkdir(parents=True)
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                # Each process has its own: of a sharded model it keeps its own shards.
                torch.save(self._callback_states(), staged / self._state_name)
                self.accelerator.wait_for_everyone()
                if is_first:
                    seal_checkpoint(staged)
                    place_checkpoint(staged, root)
                    remove_old(root, keep=self._keep_checkpoints)
                self.accelerator.wait_for_everyone()
        except OSError as error:
            shutil.rmtree(self._staging, ignore_errors=True)
            raise TrainingError(
                f"The checkpoint of step {self.state.global_step} cannot be written below {root}: "
                f"{why_unwritten(error)}"
            ) from error
        finally:
            self._staging = None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The trained parameters, in their own names and precision; the base is not copied."""
        from safetensors.torch import save_file

        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        names = [name for name, _ in trained_parameters(model)]
        values = state_dict or dict(trained_parameters(model))
        save_file({name: values[name].detach().contiguous() for name in names}, folder / WEIGHTS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        from safetensors.torch import load_file

        from adapters.training.callbacks.parameters import put_parameters

        put_parameters(model or self.model, load_file(Path(resume_from_checkpoint) / WEIGHTS_NAME))

    def load_finished(self, checkpoint: Path) -> None:
        """The model and the counters of a run's last checkpoint: a run that has no step left."""
        step = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).global_step
        self._batches.end_at(step)
        self.args.max_steps = step
        self.train(resume_from_checkpoint=str(checkpoint))

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds all weights (FSDP, ZeRO-3)."""
        if self.is_deepspeed_enabled:
            stage = self.accelerator.deepspeed_plugin.zero_stage
            return bool(stage == 3)
        return bool(self.is_fsdp_enabled)

    def whole_weights(self) -> dict[str, Any]:
        """The trained parameters of a sharded model, gathered; empty in all processes but the first."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        if not self.is_world_process_zero():
            return {}
        return {name: state[name].to("cpu") for name, _ in trained_parameters(self.model)}

    def restore_callbacks(self, checkpoint: Path) -> None:
        """Give the callbacks what they knew when the checkpoint was written. Call before `train`."""
        states = torch.load(checkpoint / self._state_name, weights_only=True)
        for one in self._stateful():
            if one.state_name in states:
                one.restore(states[one.state_name])

    @property
    def _state_name(self) -> str:
        return f"callbacks_{self.args.process_index}.pt"

    def _callback_states(self) -> dict[str, Any]:
        return {one.state_name: one.state() for one in self._stateful()}

    def _stateful(self) -> list[KeepsState]:
        return [one for one in (*self.callback_handler.callbacks, self._pace) if isinstance(one, KeepsState)]

    # What TRL would do beside

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None here: the export writes the adapter's card."""

    def _send_telemetry(self) -> None:
        """None: training needs no network."""
