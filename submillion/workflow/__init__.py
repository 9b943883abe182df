"""The order of the steps behind `train`: read, plan, build, fit, evaluate, write.

Owns nothing else. Each step is a module above; a run folder is the only thing left behind. `rows`: what is made of
the training rows before the first step · `phases`: what a watcher is shown besides records, and what it cost ·
`describing`: what a run says of itself · `interrupts`: Ctrl-C.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event

import torch

from submillion import (
    augmentation,
    backbone,
    batching,
    config,
    data,
    distillation,
    evaluation,
    losses,
    metrics,
    planning,
    prediction,
    reports,
    runs,
    tracking,
    training,
)
from submillion.checkpoints import Checkpoints
from submillion.classifier import Classifier, refuse_another_encoder
from submillion.config import Config
from submillion.data import Splits
from submillion.errors import ConfigError, did_you_mean
from submillion.runs import Run
from submillion.workflow import describing, rows
from submillion.workflow.interrupts import deferred_interrupt
from submillion.workflow.phases import Phase, Stopwatch, Watch

__all__ = ["Phase", "Question", "Stopwatch", "Watch", "ask", "train"]


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
        return config.digest(distillation.identified(self.settings, self.teachers), self.splits.fingerprint)


def train(settings: Config, watch: Watch = lambda _: False, as_trial: bool = False) -> Run:
    """Return the run of the settings: trained now, resumed, or found finished in its folder.

    `watch` sees every record and phase; True pauses the training after a step or an evaluation: the run
    is returned unfinished, its test split unopened, and the same call goes on. A teacher that is a recipe is
    trained first, before the same `watch`: then the run that is paused is the teacher's. A study's trial, and such a
    teacher, gets no report and its test split stays unopened, until a call that asks for it. ConfigError, DataError,
    BudgetError or RunError says what is wrong with the input.
    """
    watch = Stopwatch(watch)
    question = ask(settings, watch, as_trial)
    if question.paused is not None:
        return question.paused
    run = runs.find(settings.out, question.hash) or runs.create(settings.out, settings.name, question.hash)
    if not run.is_done:
        with run.lock():
            if not run.is_done:  # another process may have finished it meanwhile
                _run(run, question, watch)
                return run
    runs.verify(runs.load(run.path))
    refuse_another_encoder(run, settings.model.name)
    if not as_trial:
        _complete(run, question, watch)
    return run


def ask(settings: Config, watch: Stopwatch, as_trial: bool = False) -> Question:
    """Return the question of the settings, its teachers trained; the same errors as `train`'s."""
    _refuse_unbuilt(settings)
    asked = distillation.asked(settings)
    watch(Phase("reading"))
    splits = data.read(settings.data)
    _refuse_unknown_classes(settings, splits)
    plan = planning.plan(settings, len(splits.labels))
    doubts = distillation.check([teacher for teacher in asked if isinstance(teacher, Run)], settings, splits)
    splits = replace(splits, warnings=splits.warnings + doubts)
    teachers = _teachers(asked, watch)
    paused = next((teacher for teacher in teachers if not teacher.is_done), None)
    return Question(settings, splits, plan, tuple(teachers), as_trial, paused)


def _refuse_unbuilt(settings: Config) -> None:
    """Raise a ConfigError for what a config or a launcher asks for and cannot be had."""
    problems = []
    if "first-column" in augmentation.kinds_of(settings.augmentation) and isinstance(settings.data.text, str):
        problems.append(
            f"augmentation.kind has first-column, but data.text is one column ({settings.data.text}): name several, "
            "or take first-column out"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append("several processes were launched: this version trains in one; start it without a launcher")
    if problems:
        raise ConfigError(*problems)


def _refuse_unknown_classes(settings: Config, splits: Splits) -> None:
    """Raise a ConfigError if `train.class_weights` names labels that the data does not have."""
    weights = settings.train.class_weights
    unknown = [label for label in weights if label not in splits.labels] if isinstance(weights, dict) else []
    if unknown:
        raise ConfigError(
            *(f"train.class_weights names {label!r}: {did_you_mean(label, splits.labels)}" for label in unknown)
        )


def _teachers(asked: Sequence[Run | Config], watch: Stopwatch) -> list[Run]:
    """The teachers' runs, those of recipes trained now or found; if `watch` pauses one, it is the last.

    A teacher's test split stays sealed: its student's is read once, of the same rows.
    """
    found: list[Run] = []
    for teacher in asked:
        if isinstance(teacher, Run):
            found.append(teacher)
            continue
        watch(Phase(f"first the teacher, {teacher.name}"))
        found.append(train(teacher, watch.watch, as_trial=True))  # its phases are its own
        if not found[-1].is_done:
            break
        watch(Phase("now its student", notes=(f"the teacher is {found[-1].path}",)))
    return found


def _run(run: Run, question: Question, watch: Stopwatch) -> None:
    settings, splits, plan, teachers = question.settings, question.splits, question.plan, question.teachers
    started = time.perf_counter()
    refuse_another_encoder(run, settings.model.name)
    device = backbone.choose_device(settings.device)
    precision, reason = _precision(run, settings, device)
    chosen: dict[str, str | None] = {"device": str(device), "precision": precision, "precision_reason": reason}
    chosen["encoder_sha256"] = backbone.weights_sha256(settings.model.name)
    describing.write(run, settings, splits, plan, chosen)
    if teachers:
        run.write_json("teachers.json", distillation.summary(teachers))
    train_examples, copied = rows.augmented(settings, splits.train, watch)
    notes = (
        f"device {device}",
        f"precision {reason}",
        *describing.slowness(precision, device),
        *splits.warnings,
        *copied,
    )
    watch(Phase("tokenising", notes=notes))
    tokenizer = backbone.load_tokenizer(settings.model.name)
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
    duration = training.length(settings.train, train_split.epoch_lengths, len(validation_split))
    kept = tuple(dict.fromkeys(train_split.notes + validation_split.notes))
    watch(Phase("building", notes=(*describing.cut(train_split, settings), *kept, *duration.reasons)))
    classifier = Classifier.build(settings, plan, splits.labels, duration.n_steps, precision, device)
    checkpoints = Checkpoints(run.path / "checkpoints")
    loss = _loss(settings, splits, device)
    job = training.Job(classifier, train_split, validation_split, settings.train, duration, loss, checkpoints, started)
    job = rows.with_prefix(job, settings, watch)
    if settings.tracking:
        watch(Phase("starting trackers", notes=(f"they write into {tracking.folder_of(run)}",)))
    before = time.perf_counter()
    with tracking.mirrored(run, settings, lambda why: watch.watch(Phase("a tracker less", notes=(why,)))) as mirror:
        job = replace(job, started=started + time.perf_counter() - before)  # their start is no part of training
        if _fit(run, job, watch, mirror):
            _finish(run, question, job, watch)
            mirror.log_scores(run.scores())


def _precision(run: Run, settings: Config, device: torch.device) -> tuple[config.Precision, str]:
    """The run's own precision where it was begun before: a probe may fall out differently another day."""
    before = run.environment()
    if before is not None and before.get("device") == str(device):
        return before["precision"], before["precision_reason"]
    return backbone.choose_precision(settings.train.precision, device)


def _loss(settings: Config, splits: Splits, device: torch.device) -> training.Loss:
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


def _fit(run: Run, job: training.Job, watch: Watch, mirror: tracking.Mirror) -> bool:
    """Train; say whether it came to its end, rather than being paused by the watcher. Ctrl-C pauses and raises."""
    done = job.checkpoints.progress()
    run.cut_back(done.step, done.evaluated_step)
    watch(Phase("training", n_steps=job.length.n_steps, done_steps=done.step, notes=job.classifier.notes))
    stop = Event()
    with deferred_interrupt() as is_interrupted:
        for record in training.fit(replace(job, is_paused=lambda: stop.is_set() or is_interrupted())):
            run.append(record)
            mirror(record)
            if watch(record):
                stop.set()
        if is_interrupted():
            raise KeyboardInterrupt
    return not stop.is_set()


def _finish(run: Run, question: Question, job: training.Job, watch: Stopwatch) -> None:
    settings, splits = question.settings, question.splits
    watch(Phase("saving"))
    job.classifier.save(run.path / "adapter")
    scores = {"validation": _score(run, "validation", job, job.validation)}
    if not question.as_trial and splits.test_fingerprint is not None:
        watch(Phase("testing"))
        runs.append_test_read(settings.out, splits.test_fingerprint, run, "train")
        test = batching.tokenize(splits.test, job.classifier.tokenizer, splits.labels, settings.model.max_length)
        scores["test"] = _score(run, "test", job, test)
    run.write_scores(scores)
    run.write_json("cost.json", watch.cost(job.classifier.device))
    run.mark_done()
    job.checkpoints.remove()
    if not question.as_trial:
        _report(run, splits, watch)


def _complete(run: Run, question: Question, watch: Watch) -> None:
    """Give a finished run what a trial was left without: test's scores, and a report that has them."""
    is_sealed = bool(question.splits.test) and "test" not in run.scores()
    if is_sealed:
        watch(Phase("testing"))
        prediction.open_test(run, question.splits, question.settings.device)
    if is_sealed or not (run.path / "report.html").exists():
        _report(run, question.splits, watch)


def _report(run: Run, splits: Splits, watch: Watch) -> None:
    """Write a finished run's pages. Whatever is wrong with them, the run stands."""
    watch(Phase("reporting"))
    try:
        reports.write(run, splits)
    except Exception as error:
        again = f"the run is finished all the same; `submillion report {run.path}` tries again"
        watch(Phase("no report", notes=(f"{type(error).__name__}: {error}", again)))


def _score(run: Run, name: str, job: training.Job, split: batching.TokenizedSplit) -> dict[str, metrics.Score]:
    predictions = evaluation.predict(job.classifier, split, job.settings.evaluation_batch_size)
    run.save_predictions(name, predictions)
    return metrics.score(run.load_predictions(name))
