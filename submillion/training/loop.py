"""The loop: a generator of records.

`fit` trains, evaluates and writes checkpoints; what happens to a record is up to the caller. A yielded record counts as
written when the generator continues, so a checkpoint never includes a record that was not written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from submillion.config import TrainConfig
from submillion.errors import DivergedError, NotFiniteError
from submillion.judging import comparison, metrics
from submillion.judging.metrics import Predictions, Score, is_better, row_losses
from submillion.model import adapters, processes
from submillion.model.batching import Fitting, TokenizedSplit
from submillion.model.classifier import Classifier
from submillion.runs import EvalRecord, StepRecord, packed_losses, packed_rows, unpacked_rows
from submillion.training import evaluation
from submillion.training.checkpoints import Checkpoints, Progress, Tensors, optimizer_tensors, restore_optimizer
from submillion.training.steps import Length, Loss, Steps, diverged

Wish = Literal["pause", "stop"]

_LEAST_SECONDS = 10.0  # between checkpoints on a GPU


@dataclass(frozen=True)
class Job:
    """What one training works on.

    started: the clock (time.perf_counter) when its work began · fitting: for steps; the classifier has that of
    evaluations · wish: called after each record; "pause" writes a checkpoint and ends the generator early, "stop" ends
    the training as if it had no more steps · say: gets sentences about the work in progress.
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
    say: Callable[[str], object] = logging.getLogger("submillion").warning


def fit(job: Job) -> Generator[StepRecord | EvalRecord, None, None]:
    """Train from the last checkpoint, or the start, to the end; yield a record per step and per evaluation.

    At the end the classifier holds the parameters of the best evaluation, if there was one, also after a DivergedError,
    which says that the loss or the model's output is not a number.
    """
    loop = _Loop(job)
    steps, progress = loop.steps, loop.restore()
    try:
        while True:
            if _evaluation_is_due(progress, job):
                record, progress = loop.evaluate(progress)
                yield record
                loop.save(progress)
            elif _is_over(progress, job):
                break
            else:
                for step in steps.ahead(progress.step + 1, job.settings.checkpoint_every):
                    while not job.fitting.here(steps.step)(step):
                        pass
                record = steps.record()
                progress = replace(progress, step=record.step)
                yield record
                if loop.checkpoint_is_due(progress.step):
                    loop.save(progress)
            wish = _wish(job)
            if wish is not None:
                progress = yield from _settled(steps, progress)
                is_early = wish == "stop" and not _is_over(progress, job)
                progress = replace(progress, is_stopped=progress.is_stopped or is_early)
                loop.save(progress)
            if wish == "pause":
                return
    except DivergedError:
        loop.end(progress, is_changed=True)  # by a begun step that does not count
        raise
    loop.end(progress)


def _settled(steps: Steps, progress: Progress) -> Generator[StepRecord, None, Progress]:
    """Yield the records of begun steps; return the progress after them."""
    while steps.begun:
        record = steps.record()
        progress = replace(progress, step=record.step)
        yield record
    return progress


def _wish(job: Job) -> Wish | None:
    """Return the wish, the same in all processes: any may be interrupted alone, only the main one knows of a stop."""
    wish = job.wish()
    return (processes.on_main(lambda: wish) or "pause") if processes.anybody(wish is not None) else None


def _evaluation_is_due(progress: Progress, job: Job) -> bool:
    step, is_last = progress.step, progress.is_stopped or progress.step == job.length.n_steps
    return step > progress.evaluated_step and (step % job.length.evaluate_every == 0 or is_last)


def _is_over(progress: Progress, job: Job) -> bool:
    patience = job.settings.patience
    is_worse = patience is not None and progress.n_worse >= patience
    return progress.is_stopped or progress.step >= job.length.n_steps or is_worse


def _is_best(progress: Progress, key: str, scores: tuple[float, float], predictions: Predictions) -> bool:
    """Return whether an evaluation is better than the best so far, by the deciding score, ties broken by log loss; if
    log loss decides, accuracy's own test must not contradict it."""
    value, loss = scores
    if progress.best_score is None or progress.best_loss is None:
        return True
    if key == "scaled_log_loss" and progress.best_right is not None:
        best_right = unpacked_rows(progress.best_right)[: len(predictions.ids)]
        lower = loss < progress.best_loss if value == progress.best_score else value < progress.best_score
        return comparison.is_better_checkpoint(predictions.right, best_right, lower, predictions.groups)
    if value != progress.best_score:
        return is_better(key, value, progress.best_score)
    return loss < progress.best_loss


def _scores(predictions: Predictions, tempered: Predictions, settings: TrainConfig) -> dict[str, Score]:
    """Return an evaluation's scores, first that of `train.metric`, last the scaled log loss and the deciding one."""
    scores = metrics.score_by(predictions, settings.metric or metrics.usual_metric(predictions.has_several))
    scores["scaled_log_loss"] = metrics.log_loss(tempered)
    if (key := metrics.deciding_key(settings.deciding)) not in scores:
        scores[key] = metrics.score_by(predictions, settings.deciding)[key]
    return scores


class _Loop:
    """A training between its steps: evaluations, and checkpoints of all that changes."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.model = job.classifier
        self.recorder = job.classifier.recorder(job.say)
        self.steps = Steps(job.classifier, job.train, job.settings, job.length, job.loss, self.recorder)
        self.steps.fitting, self.steps.clock = job.fitting, job.started
        self.saved = job.started
        if self.recorder is not None:
            job.fitting.make_room = job.classifier.fitting.make_room = self.recorder.forget

    def evaluate(self, progress: Progress) -> tuple[EvalRecord, Progress]:
        """Score the validation split and keep the parameters if they are the best so far by the deciding score.

        Log loss breaks ties; if both are equal, the earlier stays.

        Its time is recorded apart from training's.
        """
        job, seconds = self.job, self.steps.seconds()
        size = job.settings.evaluation_batch_size
        try:
            predictions = evaluation.predict(self.model, job.validation, size, shared=True)
            predictions = evaluation.with_own_thresholds(predictions, job.settings)
            self.model.train()
        except NotFiniteError:  # a step's gradient may not be finite though its loss is
            problem = f"probabilities of validation rows are not numbers after step {progress.step}"
            raise diverged(problem, job.settings) from None
        tempered = metrics.tempered(predictions).predictions
        scores = _scores(predictions, tempered, job.settings)
        key, loss = metrics.deciding_key(job.settings.deciding), scores["log_loss"].value
        chosen = scores[key].value
        record = EvalRecord(
            step=progress.step,
            epoch=progress.step / job.length.n_epoch_steps,
            loss=loss,
            learning_rate=self.steps.set_learning_rate(progress.step),
            tokens=0,
            seconds=seconds,
            evaluation_s=self.steps.seconds(),
            scores=scores,
            best=_is_best(progress, key, (chosen, loss), predictions),
            right=packed_rows(predictions.right),
            losses=packed_losses(row_losses(tempered)),
        )
        # A tie broken by log loss is not a better score: patience would wait for its last digits.
        n_worse = progress.n_worse + 1 if chosen == progress.best_score or not record.best else 0
        progress = replace(progress, evaluated_step=progress.step, n_worse=n_worse)
        if not record.best:
            return record, progress
        parts = self._parts()
        self.job.checkpoints.save_best(record.step, parts["trainable"] | parts["method"])
        return record, replace(
            progress, best_step=record.step, best_score=chosen, best_loss=loss, best_right=record.right
        )

    def save(self, progress: Progress) -> None:
        """Write the checkpoint of the current step, in the main process: all have the same."""
        parts = {**self._parts(), "optimizer": optimizer_tensors(self.steps.optimizer)}
        state = replace(progress, scaler=self.steps.scaler.state_dict(), max_tokens=self.job.fitting.max_tokens)
        self.job.checkpoints.save(state, parts)
        self.saved = time.perf_counter()

    def checkpoint_is_due(self, step: int) -> bool:
        """Return whether a step's checkpoint is written: on a GPU not all, which would take as long as the steps."""
        if step % self.job.settings.checkpoint_every:
            return False
        is_soon = self.steps.device.type == "cuda" and time.perf_counter() < self.saved + _LEAST_SECONDS
        return processes.on_main(lambda: not is_soon)  # each process has its own clock

    def restore(self) -> Progress:
        """Load the last checkpoint, if there is one, and return its progress."""
        checkpoint = self.job.checkpoints.load()
        if checkpoint is None:
            return Progress()
        progress, parts = checkpoint
        self._load(parts["trainable"] | parts.get("method", {}))
        restore_optimizer(self.steps.optimizer, parts.get("optimizer", {}))
        self.job.fitting.max_tokens = progress.max_tokens
        if self.steps.scaler.is_enabled():
            self.steps.scaler.load_state_dict(progress.scaler)
        return progress

    def end(self, progress: Progress, is_changed: bool = False) -> None:
        """Give up recorded work, and load the best evaluation's parameters if the classifier has others."""
        if self.recorder is not None:
            self.recorder.forget()  # the test split is evaluated next, and the classifier may live on
        if progress.best_step is not None and (is_changed or progress.best_step != progress.step):
            self._load(self.job.checkpoints.load_best(progress.best_step))

    def _parts(self) -> dict[str, Tensors]:
        trainable = {name: parameter.detach() for name, parameter in self.steps.parameters.items()}
        return {"trainable": trainable, "method": adapters.method_state(self.model.model)}

    def _load(self, tensors: Tensors) -> None:
        with torch.no_grad():
            for name, parameter in self.steps.parameters.items():
                parameter.copy_(tensors[name])
        adapters.load_method_state(
            self.model.model, {name: t for name, t in tensors.items() if name not in self.steps.parameters}
        )
