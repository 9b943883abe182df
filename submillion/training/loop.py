"""The loop: a generator of records.

`fit` trains, evaluates and writes checkpoints; what happens to a record is the caller's affair. A
record that was yielded counts as written when the generator goes on, so a checkpoint never knows of
a record that was not written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from submillion.config import TrainConfig
from submillion.errors import DivergedError, NotFiniteError
from submillion.judging.metrics import is_better, leading, score_by
from submillion.model import adapters, processes
from submillion.model.backbone import seed_for
from submillion.model.batching import Batch, Fitting, TokenizedSplit, n_batches, training_order
from submillion.model.classifier import Classifier
from submillion.runs import EvalRecord, StepRecord, packed_rows
from submillion.runs.pace import MAX_EPOCHS, MIN_STEPS, derived_epochs
from submillion.runs.pace import n_steps as steps_of
from submillion.training import evaluation, optimizers
from submillion.training.checkpoints import Checkpoints, Progress, Tensors, optimizer_tensors, restore_optimizer

Wish = Literal["pause", "stop"]
Loss = Callable[[torch.Tensor, Batch], torch.Tensor]

_MAX_EVALUATIONS, _EVALUATED_SHARE = 20, 0.25


@dataclass(frozen=True)
class Length:
    """How long a training is: n_steps optimiser steps, of which n_epoch_steps pass once over the rows,
    with an evaluation every evaluate_every steps and at the end. `reasons` says what was derived."""

    n_steps: int
    n_epoch_steps: int
    evaluate_every: int
    reasons: tuple[str, ...]


def length(train: TrainConfig, lengths: np.ndarray, n_validation_rows: int) -> Length:
    """Return the length of a training on rows of these lengths (tokens, int64 [N]); what the config leaves
    null is derived."""
    n_epoch_steps = math.ceil(n_batches(lengths, train) / train.accumulation)
    reasons = []
    if train.epochs is None and train.steps is None:
        epochs = derived_epochs(n_epoch_steps)
        reasons.append(f"{epochs} epochs: whole ones up to {MIN_STEPS} steps, at most {MAX_EPOCHS}")
    n_steps = steps_of(train, n_epoch_steps)
    every = train.evaluate_every
    if every is None:
        n_read = _EVALUATED_SHARE * n_steps * len(lengths) / n_epoch_steps
        n_evaluations = max(1, min(_MAX_EVALUATIONS, n_steps, int(n_read / max(1, n_validation_rows))))
        every = math.ceil(n_steps / n_evaluations)
        reasons.append(f"an evaluation every {every} steps: reads a quarter as many rows as training, 1 to 20 times")
    return Length(n_steps, n_epoch_steps, every, tuple(reasons))


@dataclass(frozen=True)
class Job:
    """What one training works on.

    started: the clock (time.perf_counter) when its work began · fitting: of steps; that of evaluations is the
    classifier's · wish: asked after each record; "pause" writes a checkpoint and ends the generator early, "stop" ends
    the training as if it had no more steps.
    """

    classifier: Classifier
    train: TokenizedSplit
    validation: TokenizedSplit
    settings: TrainConfig
    length: Length
    loss: Loss
    checkpoints: Checkpoints
    started: float
    fitting: Fitting = field(default_factory=Fitting)
    wish: Callable[[], Wish | None] = lambda: None


def fit(job: Job) -> Generator[StepRecord | EvalRecord, None, None]:
    """Train from the last checkpoint, or the start, to the end; yield a record per step and per evaluation.

    At the end the classifier holds the parameters of the best evaluation; also at a DivergedError, which says that
    the loss, or what the model gives, is not a number, if there was an evaluation before.
    """
    loop = _Loop(job)
    progress = loop.restore()
    try:
        while True:
            if _evaluation_is_due(progress, job):
                record, progress = loop.evaluate(progress)
                yield record
                loop.save(progress)
            elif _is_over(progress, job):
                break
            else:
                while (record := job.fitting.here(loop.step)(progress.step + 1)) is None:
                    pass
                progress = replace(progress, step=record.step)
                yield record
                if progress.step % job.settings.checkpoint_every == 0:
                    loop.save(progress)
            wish = _wish(job)
            if wish == "stop":
                progress = replace(progress, is_stopped=progress.is_stopped or not _is_over(progress, job))
            if wish is not None:
                loop.save(progress)
            if wish == "pause":
                return
    except DivergedError:
        loop.restore_best(progress)
        raise
    loop.restore_best(progress)


def _wish(job: Job) -> Wish | None:
    """What is asked for, the same in all processes: that one may be interrupted alone, the main one knows of a stop."""
    wish = job.wish()
    return (processes.on_main(lambda: wish) or "pause") if processes.anybody(wish is not None) else None


def _evaluation_is_due(progress: Progress, job: Job) -> bool:
    step, is_last = progress.step, progress.is_stopped or progress.step == job.length.n_steps
    return step > progress.evaluated_step and (step % job.length.evaluate_every == 0 or is_last)


def _is_over(progress: Progress, job: Job) -> bool:
    patience = job.settings.patience
    is_worse = patience is not None and progress.n_worse >= patience
    return progress.is_stopped or progress.step >= job.length.n_steps or is_worse


def _is_best(progress: Progress, key: str, value: float, loss: float) -> bool:
    """Say whether an evaluation is better than the best so far; log loss breaks a tie."""
    if progress.best_score is None or progress.best_loss is None:
        return True
    if value != progress.best_score:
        return is_better(key, value, progress.best_score)
    return loss < progress.best_loss


class _Loop:
    """The mutable half of a training: the optimiser, the clock and the order of the current epoch."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.model = job.classifier
        self.parameters = adapters.trainable_parameters(self.model.model)
        head = {name: p for name, p in self.parameters.items() if adapters.is_head(self.model.model, name)}
        adapter = {name: p for name, p in self.parameters.items() if name not in head}
        self.optimizer = optimizers.build(adapter, head, job.settings)
        self.device = next(iter(self.parameters.values())).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.model.precision == "fp16")
        self.scaler.scale(torch.zeros((), device=self.device))  # sets it up, also where a process has no row at first
        self.lengths = job.train.lengths
        self.clock = job.started
        self.epoch, self.batches = -1, []

    def step(self, step: int) -> StepRecord | None:
        """Do optimiser step `step` (from 1) and return its record; None where memory did not hold its batch.

        Such an attempt leaves nothing: what it had added up is dropped, and dropout draws anew.
        """
        job, train = self.job, self.job.settings
        rate = optimizers.set_learning_rate(self.optimizer, train, step, job.length.n_steps)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        micro_batches, is_done = self._rows_of(step), False
        n_rows = sum(len(rows) for rows in micro_batches)
        loss, n_tokens = 0.0, 0
        with job.fitting:
            for micro, rows in enumerate(rows[processes.part()] for rows in micro_batches):
                torch.manual_seed(seed_for("dropout", train.seed, step, micro, processes.rank()))
                for part in job.fitting.parts(rows, self.lengths):
                    batch = job.train.batch(part).to(self.device)
                    loss += self._backward(self.model(batch), batch, n_rows)
                    n_tokens += batch.n_tokens
            is_done = True
        if not is_done:
            return None
        loss, n_tokens = processes.add_gradients(list(self.parameters.values()), loss, n_tokens)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss} at step {step}", step)
        self._update(step)
        return StepRecord(step, step / job.length.n_epoch_steps, loss, rate, int(n_tokens), self._seconds())

    def evaluate(self, progress: Progress) -> tuple[EvalRecord, Progress]:
        """Score the validation split and keep the parameters if they are the best so far by `train.metric`.

        Log loss breaks ties; of equals in both the earlier stays.

        The time it takes is kept apart from training's.
        """
        job, seconds = self.job, self._seconds()
        size = job.settings.evaluation_batch_size
        try:
            predictions = evaluation.predict(self.model, job.validation, size, shared=True)
        except NotFiniteError:  # a step's gradient may not be finite though its loss is
            found = f"probabilities of validation rows are not numbers after step {progress.step}"
            raise self._diverged(found) from None
        scores = score_by(predictions, job.settings.metric)
        (key, chosen), loss = leading(scores), scores["log_loss"].value
        record = EvalRecord(
            step=progress.step,
            epoch=progress.step / job.length.n_epoch_steps,
            loss=loss,
            learning_rate=optimizers.set_learning_rate(self.optimizer, job.settings, progress.step, job.length.n_steps),
            tokens=0,
            seconds=seconds,
            evaluation_s=self._seconds(),
            scores=scores,
            best=_is_best(progress, key, chosen.value, loss),
            right=packed_rows(predictions.predicted == predictions.label_ids),
        )
        # A tie that log loss decides is not a better score: patience would wait for its last digits.
        n_worse = progress.n_worse + 1 if chosen.value == progress.best_score or not record.best else 0
        progress = replace(progress, evaluated_step=progress.step, n_worse=n_worse)
        if not record.best:
            return record, progress
        parts = self._parts()
        self.job.checkpoints.save_best(record.step, parts["trainable"] | parts["method"])
        return record, replace(progress, best_step=record.step, best_score=chosen.value, best_loss=loss)

    def _diverged(self, found: str, step: int | None = None) -> DivergedError:
        if step == 1:
            return DivergedError(
                f"{found}, before anything was learnt: set train.precision to fp32, or start from other weights "
                "(model.name, adapter.start_from)"
            )
        rate = self.job.settings.learning_rate
        return DivergedError(f"{found}: lower train.learning_rate (it is {rate}) or set train.precision to fp32")

    def save(self, progress: Progress) -> None:
        """Write the checkpoint of the current step; the main process does, all have the same."""
        parts = {**self._parts(), "optimizer": optimizer_tensors(self.optimizer)}
        state = replace(progress, scaler=self.scaler.state_dict(), max_tokens=self.job.fitting.max_tokens)
        self.job.checkpoints.save(state, parts)

    def restore(self) -> Progress:
        """Load the last checkpoint, if there is one, and return where it stands."""
        found = self.job.checkpoints.load()
        if found is None:
            return Progress()
        progress, parts = found
        self._load(parts["trainable"] | parts.get("method", {}))
        restore_optimizer(self.optimizer, parts.get("optimizer", {}))
        self.job.fitting.max_tokens = progress.max_tokens
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(progress.scaler)
        return progress

    def restore_best(self, progress: Progress) -> None:
        """Load the best evaluation's parameters into the classifier."""
        if progress.best_step is not None and progress.best_step != progress.step:
            self._load(self.job.checkpoints.load_best(progress.best_step))

    def _parts(self) -> dict[str, Tensors]:
        trainable = {name: parameter.detach() for name, parameter in self.parameters.items()}
        return {"trainable": trainable, "method": adapters.method_state(self.model.model)}

    def _load(self, tensors: Tensors) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])
        adapters.load_method_state(
            self.model.model, {name: t for name, t in tensors.items() if name not in self.parameters}
        )

    def _rows_of(self, step: int) -> list[np.ndarray]:
        """The row numbers of each micro-batch of a step; an epoch's order is made when it begins."""
        train, per_epoch = self.job.settings, self.job.length.n_epoch_steps
        epoch, place = divmod(step - 1, per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            split = self.job.train
            order = training_order(split.epoch_lengths, train, epoch)
            self.batches = [split.in_epoch(rows, epoch) for rows in order]
        return self.batches[place * train.accumulation : (place + 1) * train.accumulation]

    def _backward(self, logits: torch.Tensor, batch: Batch, n_rows: int) -> float:
        """Add the part's gradients; return its share of the step's mean loss over `n_rows` rows."""
        loss = self.job.loss(logits, batch) / n_rows
        penalty = adapters.orthogonality_loss(self.model.model)
        total = loss if penalty is None else loss + penalty * (batch.n_rows / n_rows)
        self.scaler.scale(total).backward()
        return float(loss.detach())

    def _update(self, step: int) -> None:
        self.scaler.unscale_(self.optimizer)
        if self.job.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.job.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        adapters.reallocate(self.model.model, step)
        self.optimizer.zero_grad(set_to_none=True)

    def _seconds(self) -> float:
        """Seconds since it was last asked (or since the job began)."""
        before, self.clock = self.clock, time.perf_counter()
        return self.clock - before
