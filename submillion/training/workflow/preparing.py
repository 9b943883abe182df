"""What stands before the first step: the question that a run answers, and the `loop.Job` that is made of it.

The question is asked, and the job is worked through, by the folder's `train`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from submillion import config, data, planning
from submillion.config import Config
from submillion.data import Splits
from submillion.model import backbone, batching, processes
from submillion.model.classifier import Classifier, refuse_another_encoder
from submillion.planning import architectures
from submillion.planning.architectures import files
from submillion.runs import Run
from submillion.training import distillation, loop, losses, workers
from submillion.training.checkpoints import Checkpoints
from submillion.training.workflow import describing, rows
from submillion.training.workflow.phases import Phase, Watch, downloads


@dataclass(frozen=True)
class Question:
    """What a run answers: checked settings, rows, the plan, finished teachers.

    as_trial: of a study, whose test split stays sealed · paused: a teacher that the watcher stopped; then there is no
    answer yet.
    """

    settings: Config
    splits: Splits
    plan: planning.Plan
    teachers: tuple[Run, ...]
    as_trial: bool
    paused: Run | None = None

    @property
    def hash(self) -> str:
        """Return the hash that addresses the run."""
        return config.digest(distillation.identified(self.settings, self.teachers), self.splits.key)


def pinned(settings: Config, watch: Watch) -> Config:
    """Return the settings with the commit of each thing that comes from the Hub; HubError if it cannot be had."""

    def say(note: str) -> None:
        watch(Phase("asking the Hub", notes=(note,)))

    found = {"model": architectures.pinned(settings.model, say), "data": data.pinned(settings.data, say)}
    return settings.model_copy(update=found)


def download(settings: Config, watch: Watch) -> None:
    """Bring the encoder's files to this disk, with a bar, where they are not there; HubError if they cannot be had."""
    model = settings.model
    if files.at_hand(model.name, model.revision) is not None:
        return
    files.folder(model.name, model.revision, downloads(watch))


def threads(run: Run) -> tuple[int, tuple[str, ...]]:
    """Return the run's own number of threads where it was begun before, else what there are here; and what to say."""
    n_given, before = torch.get_num_threads(), run.environment() or {}
    n_threads = before.get("threads", n_given) if before.get("processes") == processes.count() else n_given
    return n_threads, workers.thread_notes(n_threads, n_given)


def begin(run: Run, question: Question, device: torch.device) -> tuple[config.Precision, tuple[str, ...]]:
    """Write what a run says of itself; return its precision, and what is worth saying of it here."""
    settings, teachers = question.settings, question.teachers
    refuse_another_encoder(run, settings.model.name, settings.model.revision)
    precision, reason = _precision(run, settings, device)
    chosen: dict[str, str | None] = {"device": str(device), "precision": precision, "precision_reason": reason}
    chosen["encoder_sha256"] = backbone.weights_sha256(settings.model.name, settings.model.revision)
    notes = describing.write(run, settings, question.splits, question.plan, chosen)
    if teachers:
        run.write_json("teachers.json", distillation.summary(teachers))
    return precision, (f"precision {reason}", *notes)


def job_of(
    run: Run,
    question: Question,
    chosen: tuple[torch.device, config.Precision, tuple[str, ...]],
    watch: Watch,
    started: float,
) -> loop.Job:
    """What the training works on: rows, their teachers' logits, the model, the frozen layers' output."""
    settings, splits, plan, teachers = question.settings, question.splits, question.plan, question.teachers
    device, precision, said = chosen
    train_examples, copied = rows.augmented(settings, splits.train, watch)
    notes = (
        f"device {device}",
        *said,
        *describing.slowness(precision, device),
        *splits.warnings,
        *copied,
    )
    watch(Phase("tokenising", notes=notes))
    tokenizer = backbone.load_tokenizer(settings.model.name, settings.model.revision)
    train_split, validation_split = (
        batching.tokenize(examples, tokenizer, splits.labels, settings.model.max_length)
        for examples in (train_examples, splits.validation)
    )
    if settings.augmentation.kind is not None and settings.augmentation.placement == "rotating":
        train_split = replace(train_split, n_variants=1 + settings.augmentation.copies)
    if teachers:
        place = (device, precision)
        column = rows.teacher_logits(teachers, train_examples, splits.labels, place, settings.distillation, watch)
        train_split = replace(train_split, teacher_logits=column)
    duration = loop.length(settings.train, train_split.epoch_lengths, len(validation_split))
    kept = tuple(dict.fromkeys(train_split.notes + validation_split.notes))
    watch(Phase("building", notes=(*describing.cut(train_split, settings), *kept, *duration.reasons)))
    classifier = Classifier.build(settings, plan, splits.labels, duration.n_steps, precision, device)
    checkpoints = Checkpoints(run.path / "checkpoints")
    loss = _loss(settings, splits, device)
    job = loop.Job(classifier, train_split, validation_split, settings.train, duration, loss, checkpoints, started)
    return rows.with_prefix(job, settings, watch)


def _precision(run: Run, settings: Config, device: torch.device) -> tuple[config.Precision, str]:
    """The run's own precision where it was begun before: a probe may fall out differently another day."""
    before = run.environment()
    if before is not None and before.get("device") == str(device):
        return before["precision"], before["precision_reason"]
    return backbone.choose_precision(settings.train.precision, device)


def _loss(settings: Config, splits: Splits, device: torch.device) -> loop.Loss:
    counts = [sum(example.label == label for example in splits.train) for label in splits.labels]
    weights = losses.class_weights(settings.train, splits.labels, counts)
    weights = None if weights is None else weights.to(device)
    smoothing = settings.train.label_smoothing

    def loss(logits: torch.Tensor, batch: batching.Batch) -> torch.Tensor:
        supervised = losses.supervised(logits, batch.label_ids, smoothing, weights)
        if batch.teacher_logits is None:
            return supervised
        return losses.distilled(supervised, logits, batch.teacher_logits, settings.distillation)

    return loss
