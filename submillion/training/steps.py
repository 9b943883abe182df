"""Optimiser steps: rows to gradients to parameters, and a record of each.

On a GPU a step is recorded work (`Recorder`), and one more is begun before a record is read, so the GPU never waits for
a watcher. Evaluations and checkpoints belong to `loop`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from submillion.config import TrainConfig
from submillion.errors import DivergedError
from submillion.model import adapters, processes
from submillion.model.backbone import seed_for
from submillion.model.batching import Batch, Fitting, TokenizedSplit, n_batches, training_order
from submillion.model.classifier import Classifier
from submillion.model.replays import Recorder
from submillion.runs import StepRecord
from submillion.runs.pace import MAX_EPOCHS, MIN_STEPS, derived_epochs
from submillion.runs.pace import n_steps as steps_of
from submillion.training import optimizers

Loss = Callable[[torch.Tensor, Batch], torch.Tensor]

_MAX_EVALUATIONS, _EVALUATED_SHARE = 20, 0.25
_N_AHEAD = 1  # steps that a GPU still has to do when a record is read


@dataclass(frozen=True)
class Length:
    """The length of a training: n_steps optimiser steps, n_epoch_steps per epoch, with an evaluation every
    evaluate_every steps and at the end. `reasons` says what was derived."""

    n_steps: int
    n_epoch_steps: int
    evaluate_every: int
    reasons: tuple[str, ...]


def length(train: TrainConfig, lengths: np.ndarray, n_validation_rows: int) -> Length:
    """Return the length of a training on rows of these lengths (tokens, int64 [N]); null settings are derived."""
    n_epoch_steps = math.ceil(n_batches(lengths, train) / train.accumulation)
    reasons = []
    if train.epochs is None and train.steps is None:
        epochs = derived_epochs(n_epoch_steps)
        reasons.append(f"{epochs} epochs: as many as reach {MIN_STEPS} steps, at most {MAX_EPOCHS}")
    n_steps = steps_of(train, n_epoch_steps)
    interval = train.evaluate_every
    if interval is None:
        n_read = _EVALUATED_SHARE * n_steps * len(lengths) / n_epoch_steps
        n_evaluations = max(1, min(_MAX_EVALUATIONS, n_steps, int(n_read / max(1, n_validation_rows))))
        interval = math.ceil(n_steps / n_evaluations)
        reasons.append(_evaluations(interval, n_steps))
    elif interval < 1:  # a fraction; 0.1 of 30 steps is 3, whatever the last bit
        interval = max(1, math.ceil(interval * n_steps - 1e-9))
    return Length(n_steps, n_epoch_steps, int(interval), tuple(reasons))


def _evaluations(interval: int, n_steps: int) -> str:
    """Return how many evaluations were derived, and why."""
    n = math.ceil(n_steps / interval)
    why = "reading at most a quarter as many rows as training" if n > 1 else "the fewest there can be"
    when = f"every {interval:,} steps" if interval > 1 else "after each step"
    return f"an evaluation {when}: {n} in all, {why}"


@dataclass(frozen=True)
class _Begun:
    """A begun step; `loss` waits for a GPU."""

    step: int
    rate: float
    n_tokens: int
    loss: Callable[[], float]


def _read_later(loss: torch.Tensor) -> Callable[[], float]:
    """Return a function that waits for a GPU's number, at its value at this point of the GPU's work."""
    on_host, is_read = torch.empty_like(loss, device="cpu", pin_memory=True), torch.cuda.Event()
    on_host.copy_(loss, non_blocking=True)
    is_read.record()

    def wait() -> float:
        is_read.synchronize()
        return float(on_host)

    return wait


def diverged(problem: str, settings: TrainConfig, step: int | None = None) -> DivergedError:
    """Return the error for a loss or scores that are not numbers, with advice."""
    if step == 1:
        return DivergedError(
            f"{problem}, before anything was learnt: set train.precision to fp32, or start from other weights "
            "(model.name, adapter.start_from)"
        )
    rate = settings.learning_rate
    return DivergedError(f"{problem}: lower train.learning_rate (it is {rate}) or set train.precision to fp32")


class Steps:
    """The steps of one training, and what they change: parameters, the optimiser, fp16's loss scale.

    split: the training rows · loss_of: the summed loss of a batch · recorder: of a GPU's work, or None · fitting,
    clock: set by the creator · begun: steps whose records were not read yet.
    """

    def __init__(
        self,
        model: Classifier,
        split: TokenizedSplit,
        settings: TrainConfig,
        length: Length,
        loss_of: Loss,
        recorder: Recorder | None,
    ) -> None:
        self.model = model.train()
        self.split, self.settings, self.length, self.loss_of, self.recorder = split, settings, length, loss_of, recorder
        self.fitting = Fitting()
        self.parameters = adapters.trainable_parameters(model.model)
        head = {name: p for name, p in self.parameters.items() if adapters.is_head(model.model, name)}
        adapter = {name: p for name, p in self.parameters.items() if name not in head}
        self.device = next(iter(self.parameters.values())).device
        # fp16's loss scale, and the other optimisers, wait for the device.
        self._is_change_recorded = recorder is not None and settings.optimizer == "adamw" and model.precision != "fp16"
        self.optimizer = optimizers.build(adapter, head, settings, self.device if self._is_change_recorded else None)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=model.precision == "fp16")
        self.scaler.scale(torch.zeros((), device=self.device))  # sets it up, even if a process has no rows at first
        self.begun: deque[_Begun] = deque()
        self._lengths = split.lengths
        self.clock = time.perf_counter()  # of the record before
        self._epoch, self._batches = -1, list[np.ndarray]()
        # Of the current step: added up over its parts, in memory that stays.
        self._loss = torch.zeros((), dtype=torch.float32 if self.device.type == "mps" else torch.float64).to(
            self.device
        )
        # Rows of the step; on a GPU a tensor, since a recording must serve any number, with the same division
        # elsewhere.
        self._n_rows: float | torch.Tensor = 1.0
        if self.device.type == "cuda":
            self._n_rows = torch.ones((), device=self.device)
        self._n_ahead = _N_AHEAD if self.device.type == "cuda" and processes.count() == 1 else 0

    def set_learning_rate(self, step: int) -> float:
        """Set the rates of a step; return the adapters'."""
        return optimizers.set_learning_rate(self.optimizer, self.settings, step, self.length.n_steps)

    def ahead(self, step: int, checkpoint_every: int) -> range:
        """Return the steps to begin before the record of `step` is read: a GPU has one more to do meanwhile.

        No step is begun beyond the next evaluation, checkpoint or end.
        """
        intervals = (self.length.evaluate_every, checkpoint_every)
        pause = min(self.length.n_steps, *(-(-step // n) * n for n in intervals))
        return range(self.begun[-1].step + 1 if self.begun else step, min(step + self._n_ahead, pause) + 1)

    def record(self) -> StepRecord:
        """Return the record of the first step that has none yet; wait for a GPU."""
        begun = self.begun.popleft()
        loss, step = begun.loss(), begun.step
        self._refuse_not_finite(loss, step)
        return StepRecord(step, step / self.length.n_epoch_steps, loss, begun.rate, begun.n_tokens, self.seconds())

    def step(self, step: int) -> bool:
        """Begin an optimiser step (from 1), and finish it without a GPU; return False if its batch did not fit.

        Such an attempt leaves nothing: its sums are dropped, and dropout draws anew.
        """
        train = self.settings
        rate = self.set_learning_rate(step)
        micro_batches, is_done = self._rows_of(step), False
        self._clear(sum(len(rows) for rows in micro_batches))
        n_tokens = 0
        with self.fitting:
            for micro, rows in enumerate(rows[processes.part()] for rows in micro_batches):
                torch.manual_seed(seed_for("dropout", train.seed, step, micro, processes.rank()))
                for part in self.fitting.parts(rows, self._lengths):
                    batch = self.split.batch(part)
                    if self.recorder is None:
                        batch = batch.to(self.device)
                        self._add(self.model(batch), batch)
                    else:
                        self.recorder.run_on(batch, self._compute)
                    n_tokens += batch.n_tokens
            is_done = True
        if not is_done:
            return False
        if self._n_ahead:
            begun = _Begun(step, rate, n_tokens, _read_later(self._loss))
        else:
            loss, n_tokens = processes.add_gradients(list(self.parameters.values()), float(self._loss), n_tokens)
            self._refuse_not_finite(loss, step)  # before anything changes
            begun = _Begun(step, rate, int(n_tokens), lambda: loss)
        self._update(step)
        self.begun.append(begun)
        return True

    def _refuse_not_finite(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise diverged(f"the loss is {loss} at step {step}", self.settings, step)

    def seconds(self) -> float:
        """Return the seconds since the last call, at first since `clock` was set."""
        previous, self.clock = self.clock, time.perf_counter()
        return self.clock - previous

    def _rows_of(self, step: int) -> list[np.ndarray]:
        """Return the row numbers of each micro-batch of a step; an epoch's order is made when it begins."""
        train, per_epoch = self.settings, self.length.n_epoch_steps
        epoch, place = divmod(step - 1, per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            split = self.split
            order = training_order(split.epoch_lengths, train, epoch)
            self._batches = [split.in_epoch(rows, epoch) for rows in order]
        return self._batches[place * train.accumulation : (place + 1) * train.accumulation]

    def _clear(self, n_rows: int) -> None:
        """Begin a step of `n_rows` rows without loss and gradients; recorded work adds to gradients in place."""
        self._loss.zero_()
        self.optimizer.zero_grad(set_to_none=self.recorder is None)
        if isinstance(self._n_rows, torch.Tensor):
            self._n_rows.fill_(n_rows)
        else:
            self._n_rows = n_rows

    def _compute(self, batch: Batch) -> None:
        self._add(self.model(batch), batch)

    def _add(self, logits: torch.Tensor, batch: Batch) -> None:
        """Add a part's gradients, and its share of the step's mean loss."""
        loss = self.loss_of(logits, batch) / self._n_rows
        penalty = adapters.orthogonality_loss(self.model.model)
        total = loss if penalty is None else loss + penalty * (batch.n_rows / self._n_rows)
        self._loss += loss.detach()
        if self.recorder is None:
            self.scaler.scale(total).backward()
            return
        # Not backward(), which adds to each gradient by a separate kernel.
        parameters = list(self.parameters.values())
        gradients = torch.autograd.grad(self.scaler.scale(total), parameters, allow_unused=True)
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is None:
                parameter.grad = gradient.contiguous()  # as fused optimisers need it
            elif gradient is not None and parameter.grad is not None:
                pairs.append((parameter.grad, gradient))
        if pairs:
            add: Any = torch._foreach_add_  # pyright: ignore[reportPrivateImportUsage]
            add([old for old, _ in pairs], [new for _, new in pairs])

    def _update(self, step: int) -> None:
        if self.recorder is not None and self._is_change_recorded:
            self.recorder.run(self._change)
        else:
            self._change()
        adapters.reallocate(self.model.model, step)
        if self.recorder is None:
            self.optimizer.zero_grad(set_to_none=True)

    def _change(self) -> None:
        """Clip the gradients and change the parameters."""
        self.scaler.unscale_(self.optimizer)
        if self.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
