"""The order of the steps behind `train`: read, plan, build, fit, evaluate, write.

Owns nothing else. Each step is a module above; a run folder is the only thing left behind. `rows`: what is made of
the training rows before the first step · `phases`: what a watcher is shown besides records.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from threading import Event
from types import FrameType

import torch

from submillion import (
    backbone,
    batching,
    config,
    data,
    distillation,
    evaluation,
    losses,
    metrics,
    planning,
    reports,
    runs,
    training,
)
from submillion.checkpoints import Checkpoints
from submillion.classifier import Classifier, refuse_another_encoder
from submillion.config import Config
from submillion.data import Splits
from submillion.errors import ConfigError, did_you_mean
from submillion.packed import native
from submillion.runs import Run
from submillion.workflow import rows
from submillion.workflow.phases import Phase, Stopwatch, Watch

__all__ = ["Phase", "Watch", "train"]


def train(settings: Config, watch: Watch = lambda _: False) -> Run:
    """Return the run of the settings: trained now, resumed, or found finished in its folder.

    `watch` sees every record and phase; True pauses the training after a step or an evaluation: the run
    is returned unfinished, its test split unopened, and the same call goes on. A teacher that is a recipe is
    trained first, before the same `watch`: then the run that is paused is the teacher's. ConfigError, DataError,
    BudgetError or RunError says what is wrong with the input.
    """
    _refuse_unbuilt(settings)
    asked = distillation.asked(settings)
    watch = Stopwatch(watch)
    watch(Phase("reading"))
    splits = data.read(settings.data)
    _refuse_unknown_classes(settings, splits)
    plan = planning.plan(settings, len(splits.labels))
    doubts = distillation.check([teacher for teacher in asked if isinstance(teacher, Run)], settings, splits)
    splits = replace(splits, warnings=splits.warnings + doubts)
    teachers = _teachers(asked, watch)
    if not all(teacher.is_done for teacher in teachers):
        return teachers[-1]
    fingerprint = config.digest(distillation.identified(settings, teachers), splits.fingerprint)
    run = runs.find(settings.out, fingerprint) or runs.create(settings.out, settings.name, fingerprint)
    if not run.is_done:
        with run.lock():
            if not run.is_done:  # another process may have finished it meanwhile
                _run(run, settings, splits, plan, teachers, watch)
                _report(run, splits, watch)
                return run
    runs.verify(runs.load(run.path))
    refuse_another_encoder(run, settings.model.name)
    return run


def _refuse_unbuilt(settings: Config) -> None:
    """Raise a ConfigError for keys that are accepted in a config but have no effect in this version."""
    unbuilt = {
        "tracking": settings.tracking or None,
    }
    problems = [
        f"{key} is {value!r}: this version cannot do that yet; --set {key}={'[]' if key == 'tracking' else 'null'} "
        "trains without it"
        for key, value in unbuilt.items()
        if value is not None
    ]
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
    """The teachers' runs, those of recipes trained now or found; if `watch` pauses one, it is the last."""
    found: list[Run] = []
    for teacher in asked:
        if isinstance(teacher, Run):
            found.append(teacher)
            continue
        watch(Phase(f"first the teacher, {teacher.name}"))
        found.append(train(teacher, watch.watch))  # whose phases are its own
        if not found[-1].is_done:
            break
        watch(Phase(f"the teacher is {found[-1].path}, now its student"))
    return found


def _run(
    run: Run, settings: Config, splits: Splits, plan: planning.Plan, teachers: Sequence[Run], watch: Stopwatch
) -> None:
    started = time.perf_counter()
    refuse_another_encoder(run, settings.model.name)
    device = backbone.choose_device(settings.device)
    precision, reason = _precision(run, settings, device)
    chosen: dict[str, str | None] = {"device": str(device), "precision": precision, "precision_reason": reason}
    chosen["encoder_sha256"] = backbone.weights_sha256(settings.model.name)
    _describe(run, settings, splits, plan, chosen)
    if teachers:
        run.write_json("teachers.json", distillation.summary(teachers))
    train_examples, copied = rows.augmented(settings, splits.train, watch)
    notes = (f"device {device}", f"precision {reason}", *_slowness(precision, device), *splits.warnings, *copied)
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
    watch(Phase("building", notes=(*_cut(train_split, settings), *kept, *duration.reasons)))
    classifier = Classifier.build(settings, plan, splits.labels, duration.n_steps, precision, device)
    checkpoints = Checkpoints(run.path / "checkpoints")
    loss = _loss(settings, splits, device)
    job = training.Job(classifier, train_split, validation_split, settings.train, duration, loss, checkpoints, started)
    job = rows.with_prefix(job, settings, watch)
    if _fit(run, job, watch):
        _finish(run, settings, splits, job, watch)


def _slowness(precision: config.Precision, device: torch.device) -> tuple[str, ...]:
    """The sentence about kernels that are missing, where they would be used."""
    if precision != "bf16" or device.type != "cpu" or native.available():
        return ()
    return (
        "submillion/packed/kernels.c is not compiled: steps take longer; install a C compiler and submillion again",
    )


def _cut(split: batching.TokenizedSplit, settings: Config) -> tuple[str, ...]:
    """The sentence about texts that are longer than the model reads, if there are any."""
    n, longest = split.n_truncated, settings.model.max_length
    return (f"{n:,} of {len(split):,} training texts are cut at {longest} tokens (model.max_length)",) if n else ()


def _precision(run: Run, settings: Config, device: torch.device) -> tuple[config.Precision, str]:
    """The run's own precision where it was begun before: a probe may fall out differently another day."""
    before = run.environment()
    if before is not None and before.get("device") == str(device):
        return before["precision"], before["precision_reason"]
    return backbone.choose_precision(settings.train.precision, device)


def _describe(run: Run, settings: Config, splits: Splits, plan: planning.Plan, chosen: dict[str, str | None]) -> None:
    run.write("config.yaml", config.to_yaml(settings))
    run.write("plan.json", planning.to_json(plan))
    run.write_json("environment.json", chosen | _environment())
    run.write_json("labels.json", list(splits.labels))
    run.write_json("data.json", splits.summary())


def _environment() -> dict[str, object]:
    packages = ("submillion", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "kernels": native.kind(),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "packages": {package: version(package) for package in packages},
    }


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


def _fit(run: Run, job: training.Job, watch: Watch) -> bool:
    """Train; say whether it came to its end, rather than being paused by the watcher. Ctrl-C pauses and raises."""
    done = job.checkpoints.progress()
    run.cut_back(done.step, done.evaluated_step)
    watch(Phase("training", n_steps=job.length.n_steps, done_steps=done.step, notes=job.classifier.notes))
    stop = Event()
    with _deferred_interrupt() as is_interrupted:
        for record in training.fit(replace(job, is_paused=lambda: stop.is_set() or is_interrupted())):
            run.append(record)
            if watch(record):
                stop.set()
        if is_interrupted():
            raise KeyboardInterrupt
    return not stop.is_set()


def _finish(run: Run, settings: Config, splits: Splits, job: training.Job, watch: Stopwatch) -> None:
    watch(Phase("saving"))
    job.classifier.save(run.path / "adapter")
    scores = {"validation": _score(run, "validation", job, job.validation)}
    if splits.test_fingerprint is not None:
        watch(Phase("testing"))
        runs.append_test_read(settings.out, splits.test_fingerprint, run, "train")
        test = batching.tokenize(splits.test, job.classifier.tokenizer, splits.labels, settings.model.max_length)
        scores["test"] = _score(run, "test", job, test)
    run.write_scores(scores)
    run.write_json("cost.json", watch.cost(job.classifier.device))
    run.mark_done()
    job.checkpoints.remove()


def _report(run: Run, splits: Splits, watch: Watch) -> None:
    """Write a finished run's pages. Whatever is wrong with them, the run stands."""
    if not run.is_done:
        return
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


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait for the end of a step, so that the step is not lost; a second one is not deferred."""
    requests = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal requests
        requests += 1
        if requests > 1:
            raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: signals are not ours to handle
        yield lambda: False
        return
    try:
        yield lambda: requests > 0
    finally:
        signal.signal(signal.SIGINT, before)
