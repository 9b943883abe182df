"""The order of the steps behind `train`: read, plan, build, fit, evaluate, write.

Owns nothing else. Each step is a module above; a run folder is the only thing left behind.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from threading import Event
from types import FrameType
from typing import Literal

import torch

from submillion import (
    augmentation,
    backbone,
    batching,
    config,
    data,
    evaluation,
    losses,
    metrics,
    planning,
    prediction,
    runs,
    training,
)
from submillion.checkpoints import Checkpoints
from submillion.classifier import Classifier, refuse_another_encoder
from submillion.config import Config
from submillion.data import Example, Splits
from submillion.errors import ConfigError, did_you_mean
from submillion.packed import native
from submillion.runs import EvalRecord, Run, StepRecord


@dataclass(frozen=True)
class Phase:
    """A step of the work begins; `n_steps` and `done_steps` where it trains, `notes` worth printing.

    One that works through rows has `n_rows`, and is shown again with more and more `done_rows`.
    """

    name: str
    n_steps: int = 0
    done_steps: int = 0
    n_rows: int = 0
    done_rows: int = 0
    notes: tuple[str, ...] = ()
    kind: Literal["phase"] = "phase"


Watch = Callable[[StepRecord | EvalRecord | Phase], bool]


def train(settings: Config, watch: Watch = lambda _: False, open_test: bool = True) -> Run:
    """Return the run of the settings: trained now, resumed, or found finished in its folder.

    `watch` sees every record and phase; True pauses the training after a step or an evaluation: the run
    is returned unfinished, its test split unopened, and the same call goes on. Without `open_test` test stays
    unopened at the end too, until a call that opens it. ConfigError, DataError, BudgetError or RunError says what
    is wrong with the input.
    """
    _refuse_unbuilt(settings)
    watch(Phase("reading"))
    splits = data.read(settings.data)
    _refuse_unknown_classes(settings, splits)
    plan = planning.plan(settings, len(splits.labels))
    fingerprint = config.digest(settings, splits.fingerprint)
    run = runs.find(settings.out, fingerprint) or runs.create(settings.out, settings.name, fingerprint)
    if not run.is_done:
        with run.lock():
            if not run.is_done:  # another process may have finished it meanwhile
                _run(run, settings, splits, plan, watch, open_test)
                return run
    runs.verify(runs.load(run.path))
    refuse_another_encoder(run, settings.model.name)
    if open_test and splits.test and "test" not in run.scores():
        watch(Phase("testing"))
        prediction.open_test(run, splits, settings.device)
    return run


def _refuse_unbuilt(settings: Config) -> None:
    """Raise a ConfigError for keys that are accepted in a config but have no effect in this version."""
    unbuilt = {
        "distillation.teacher": settings.distillation.teacher,
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


def _run(run: Run, settings: Config, splits: Splits, plan: planning.Plan, watch: Watch, open_test: bool) -> None:
    started = time.perf_counter()
    refuse_another_encoder(run, settings.model.name)
    device = backbone.choose_device(settings.device)
    precision, reason = _precision(run, settings, device)
    chosen: dict[str, str | None] = {"device": str(device), "precision": precision, "precision_reason": reason}
    chosen["encoder_sha256"] = backbone.weights_sha256(settings.model.name)
    _describe(run, settings, splits, plan, chosen)
    train_examples, copied = _augmented(settings, splits.train, watch)
    notes = (f"device {device}", f"precision {reason}", *_slowness(precision, device), *splits.warnings, *copied)
    watch(Phase("tokenising", notes=notes))
    tokenizer = backbone.load_tokenizer(settings.model.name)
    train_split, validation_split = (
        batching.tokenize(examples, tokenizer, splits.labels, settings.model.max_length)
        for examples in (train_examples, splits.validation)
    )
    if settings.augmentation.kind is not None and settings.augmentation.placement == "rotating":
        train_split = replace(train_split, n_variants=1 + settings.augmentation.copies)
    duration = training.length(settings.train, train_split.epoch_lengths, len(validation_split))
    kept = tuple(dict.fromkeys(train_split.notes + validation_split.notes))
    watch(Phase("building", notes=(*_cut(train_split, settings), *kept, *duration.reasons)))
    classifier = Classifier.build(settings, plan, splits.labels, duration.n_steps, precision, device)
    checkpoints = Checkpoints(run.path / "checkpoints")
    loss = _loss(settings, splits, device)
    job = training.Job(classifier, train_split, validation_split, settings.train, duration, loss, checkpoints, started)
    job = _with_prefix(job, settings, watch)
    if _fit(run, job, watch):
        _finish(run, settings, splits if open_test else None, job, watch)


def _slowness(precision: config.Precision, device: torch.device) -> tuple[str, ...]:
    """The sentence about kernels that are missing, where they would be used."""
    if precision != "bf16" or device.type != "cpu" or native.available():
        return ()
    return (
        "submillion/packed/kernels.c is not compiled: steps take longer; install a C compiler and submillion again",
    )


def _augmented(settings: Config, examples: list[Example], watch: Watch) -> tuple[list[Example], tuple[str, ...]]:
    """The training examples with the copies that the settings want, and a sentence about these."""
    kind = settings.augmentation.kind
    if kind is None:
        return examples, ()
    watch(Phase("augmenting"))
    found = augmentation.with_copies(examples, settings.augmentation, settings.train.seed)
    texts = [(example.text, example.text_pair) for example in found]
    n = len(examples)
    n_equal = sum(texts[i] == texts[i % n] for i in range(n, len(found)))
    return found, (f"{len(found) - n:,} changed copies of training texts ({kind}); {n_equal:,} equal their text",)


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
        "kernels": native.available(),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "packages": {package: version(package) for package in packages},
    }


def _loss(settings: Config, splits: Splits, device: torch.device) -> training.Loss:
    counts = [sum(example.label == label for example in splits.train) for label in splits.labels]
    weights = losses.class_weights(settings.train, splits.labels, counts)
    weights = None if weights is None else weights.to(device)
    smoothing = settings.train.label_smoothing
    return lambda logits, batch: losses.supervised(logits, batch.label_ids, smoothing, weights)


def _with_prefix(job: training.Job, settings: Config, watch: Watch) -> training.Job:
    """The job with the frozen layers' output beside the rows that are read more than once.

    Validation always is: by an evaluation, and for its predictions. The choice must not depend on what the cache
    holds, or a resumed run could differ in its last bits from one never interrupted.
    """
    if job.classifier.plan.n_prefix_layers == 0:
        return job
    splits = {"validation": job.validation}
    if settings.model.prefix or job.length.n_steps > job.length.n_epoch_steps * job.train.n_variants:
        splits = {"train": job.train, **splits}
    for name, split in splits.items():
        size = f"{name}: {job.classifier.prefix_mib(split):,.1f} MiB"
        phase = Phase("computing the frozen layers' output", n_rows=len(split), notes=(size,))
        watch(phase)
        rows = replace(phase, notes=())
        splits[name], note = job.classifier.with_prefix(split, lambda n, rows=rows: watch(replace(rows, done_rows=n)))
        watch(replace(phase, done_rows=len(split), notes=(f"{name}: {note}",)))
    return replace(job, **splits)


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


def _finish(run: Run, settings: Config, splits: Splits | None, job: training.Job, watch: Watch) -> None:
    """Save and score; splits are None where test stays sealed."""
    watch(Phase("saving"))
    job.classifier.save(run.path / "adapter")
    scores = {"validation": _score(run, "validation", job, job.validation)}
    if splits is not None and splits.test_fingerprint is not None:
        watch(Phase("testing"))
        runs.append_test_read(settings.out, splits.test_fingerprint, run, "train")
        test = batching.tokenize(splits.test, job.classifier.tokenizer, splits.labels, settings.model.max_length)
        scores["test"] = _score(run, "test", job, test)
    run.write_scores(scores)
    run.mark_done()
    job.checkpoints.remove()


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
