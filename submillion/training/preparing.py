"""What comes before the first step: the question that a run answers, and the `loop.Job` made from it.

`workflow.train` asks the question and does the job.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from submillion import config, data, planning
from submillion.config import Config, DistillationConfig
from submillion.data import Example, Splits, augmentation, groups_of, tokens
from submillion.data.checking import metric_warnings
from submillion.data.labels import counted
from submillion.data.long_texts import Reading
from submillion.data.tokens import Seen
from submillion.model import backbone, batching, packed, precisions, processes
from submillion.model.classifier import Classifier, refuse_another_encoder
from submillion.model.packed import integers, native
from submillion.planning import architectures
from submillion.planning.architectures import files
from submillion.runs import Run
from submillion.training import describing, distillation, loop, losses, steps, workers
from submillion.training.checkpoints import Checkpoints
from submillion.training.watching import Phase, Stopwatch, Watch, downloads

_PROVED_IN_INT8 = {"bert": (6, 384)}  # by family, layers and width of the largest encoder in decision 037's proofs


@dataclass(frozen=True)
class Question:
    """What a run answers: checked settings, rows, the plan, finished teachers.

    as_trial: a trial of a study, whose test split stays sealed · paused: a teacher that the watcher paused; there is
    then no answer yet.
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
    """Return the settings with the commit of all that comes from the Hub; HubError if it is not available."""

    def say(note: str) -> None:
        watch(Phase("asking the Hub", notes=(note,)))

    model = architectures.pinned(settings.model, say)
    architectures.load(model.name, model.revision)  # before reading rows or weights: refuses unsupported ones
    return settings.model_copy(update={"model": model, "data": data.pinned(settings.data, say)})


def download(settings: Config, watch: Watch) -> None:
    """Download the encoder's files, with a bar, if they are missing; HubError if they are not available."""
    model = settings.model
    if files.at_hand(model.name, model.revision) is not None:
        return
    files.folder(model.name, model.revision, downloads(watch))


def threads(run: Run) -> tuple[int, tuple[str, ...]]:
    """Return the number of threads the run was begun with, else this machine's; and notes."""
    n_given, environment = torch.get_num_threads(), processes.on_main(run.environment) or {}
    n_threads = environment.get("threads", n_given) if environment.get("processes") == processes.count() else n_given
    return n_threads, workers.thread_notes(n_threads, n_given)


def job_of(run: Run, question: Question, watch: Stopwatch, notes: tuple[str, ...]) -> loop.Job:
    """Return what the training works on: rows, their teachers' logits, the model, the frozen layers' output.

    The files that describe the run are written first. `notes` are shown before this function's own.
    """
    started = time.perf_counter()
    device = backbone.choose_device(question.settings.device)
    processes.place(device)
    precision, own_notes = processes.on_main(partial(_begin, run, question, device))
    with processes.in_turn():
        job = _job(run, question, (device, precision, (f"device {device}", *notes, *own_notes)), watch, started)
    for fitting in (job.fitting, job.classifier.fitting):
        fitting.say = lambda note: watch.watch(Phase("out of memory: batches are halved", notes=(note,)))
    return job


def _begin(run: Run, question: Question, device: torch.device) -> tuple[config.Precision, tuple[str, ...]]:
    """Write the run's description; return its precision, and notes about it."""
    settings, teachers = question.settings, question.teachers
    refuse_another_encoder(run, settings.model.name, settings.model.revision)
    precision, reason = _precision(run, question, device)
    chosen: dict[str, str | None] = {"device": str(device), "precision": precision, "precision_reason": reason}
    chosen["encoder_sha256"] = backbone.weights_sha256(settings.model.name, settings.model.revision)
    notes = describing.write(run, settings, question.splits, question.plan, chosen)
    if teachers:
        run.write_json("teachers.json", distillation.summary(teachers))
    wants_int8 = settings.train.precision is None and not question.as_trial and _is_proved(question)
    return precision, (f"precision {reason}", *notes, *describing.slowness(precision, device, wants_int8))


def _job(
    run: Run,
    question: Question,
    chosen: tuple[torch.device, config.Precision, tuple[str, ...]],
    watch: Stopwatch,
    started: float,
) -> loop.Job:
    settings, splits, teachers = question.settings, question.splits, question.teachers
    device, precision, notes = chosen
    train_examples, copied = _augmented(settings, splits.train, watch)
    classes = {} if splits.has_several else counted(example.label for example in splits.train)
    about_metric = metric_warnings(classes, settings.train)
    watch(Phase("tokenising", notes=(*notes, *splits.warnings, *about_metric, *copied)))
    tokenizer = backbone.load_tokenizer(settings.model.name, settings.model.revision)
    train_split, validation_split = _tokenized(settings, splits, train_examples, tokenizer)
    alike = _alike(splits, train_split, validation_split, tokenizer)
    if settings.augmentation.kind is not None and settings.augmentation.placement == "rotating":
        train_split = replace(train_split, n_variants=1 + settings.augmentation.copies)
    if teachers:
        place = (device, precision)
        column = _teacher_logits(teachers, train_examples, splits, place, settings.distillation, watch)
        train_split = replace(train_split, teacher_logits=column)
    duration = steps.length(settings.train, train_split.epoch_lengths, len(validation_split))
    kept = tuple(dict.fromkeys(train_split.notes + validation_split.notes))
    watch(
        Phase("building", notes=(*describing.long_texts(train_split, settings.model), *alike, *kept, *duration.reasons))
    )
    classifier = Classifier.build(settings, question.plan, splits.labels, duration.n_steps, precision, device)
    classifier.tokenizer = tokenizer
    job = loop.Job(
        classifier=classifier,
        train=train_split,
        validation=validation_split,
        settings=settings.train,
        length=duration,
        loss=_loss(settings, splits, device),
        checkpoints=processes.of_main(Checkpoints(run.path / "checkpoints")),
        started=started,
        fitting=batching.Fitting(limit=_most_tokens(settings)),
        wish=watch.wish,
        say=lambda note: watch.watch(Phase("steps are not recorded", notes=(note,))),
    )
    return _with_prefix(job, settings, watch)


def _tokenized(
    settings: Config, splits: Splits, train: list[Example], tokenizer: Any
) -> tuple[batching.TokenizedSplit, batching.TokenizedSplit]:
    """Return the training rows, copies included, and the validation rows. A fold's are taken from all rows, which are
    the same for every fold: their token ids, and the frozen layers' output, are made once and found by the others. Rows
    of `data.more` are a separate part, so that the others' are found if a run was trained without them."""
    reading = Reading.of(settings.model)
    n_before = len(splits.train) - splits.n_more
    if settings.data.fold is None or len(train) > len(splits.train):
        is_parted = 0 < n_before < len(train) == len(splits.train)
        parts = [train[:n_before], train[n_before:]] if is_parted else [train]
        *first, second = (
            batching.tokenize(examples, tokenizer, splits.labels, reading) for examples in (*parts, splits.validation)
        )
        joined = batching.TokenizedSplit.joined(first) if is_parted else first[0]
        return joined, replace(second, groups=groups_of(splits.validation))
    rows = sorted((*splits.train, *splits.validation, *splits.test), key=lambda example: example.id)
    whole, places = (
        batching.tokenize(rows, tokenizer, splits.labels, reading),
        {row.id: i for i, row in enumerate(rows)},
    )
    first, second = (
        whole.take(np.array([places[example.id] for example in examples])) for examples in (train, splits.validation)
    )
    return first, replace(second, groups=groups_of(splits.validation))


def _most_tokens(settings: Config) -> int | None:
    """Return the most tokens of a step's parts, if texts have windows: a batch of long texts would need many times the
    memory of cut ones. Batches by tokens have their own limit."""
    model, train = settings.model, settings.train
    has_limit = model.long_texts == "windows" and train.batch_tokens is None
    return train.batch_size * model.max_length if has_limit else None


def _alike(
    splits: Splits, train: batching.TokenizedSplit, validation: batching.TokenizedSplit, tokenizer: Any
) -> list[str]:
    """Return warnings about rows that the encoder cannot tell apart; changed copies after them are left out."""
    seen, n = train.seen(tokenizer), len(splits.train)
    rows = {"train": (splits.train, Seen(seen.hashes[:n], seen.is_blank[:n]))}
    return tokens.warnings(rows | {"validation": (splits.validation, validation.seen(tokenizer))})


def _precision(run: Run, question: Question, device: torch.device) -> tuple[config.Precision, str]:
    """Return the precision; the run's own if it was begun before: the probe may decide differently next time."""
    environment = run.environment()
    if environment is not None and environment.get("device") == str(device):
        return environment["precision"], environment["precision_reason"]
    configured = question.settings.train.precision
    int8 = _int8(question) if configured is None and device.type == "cpu" else "unsuited"
    precision, reason = precisions.choose_precision(configured, device, int8=int8)
    if precision == "int8" and configured is None:
        reason += (
            "; an encoder of this family and size lost less than 0.3 points with it (see decision 037, int8, in the "
            "documentation); train.precision=fp32 turns it off"
        )
    return precision, reason


def _int8(question: Question) -> precisions.Int8:
    """Return whether int8 is proved for such a training, unproved but fast in all of it, or unsuited.

    Trials of a study share one precision.
    """
    architecture = question.plan.architecture
    is_even = native.fits_widths(architecture.width, architecture.width // architecture.n_heads)
    is_able = is_even and integers.is_exact() and question.plan.method == "lora" and not question.as_trial
    if not is_able or packed.supported(backbone.config_of(architecture), architecture) is not None:
        return "unsuited"
    return "proved" if _is_proved(question) else "unproved"


def _is_proved(question: Question) -> bool:
    """Return whether int8 was proved for such a training: plain LoRA, on an encoder as in decision 037 or smaller."""
    architecture = question.plan.architecture
    n_layers, width = _PROVED_IN_INT8.get(architecture.family, (0, 0))
    is_small = architecture.n_layers <= n_layers and architecture.width <= width
    return question.plan.method == "lora" and is_small


def _loss(settings: Config, splits: Splits, device: torch.device) -> steps.Loss:
    counts = counted(example.label for example in splits.train)
    n_rows = len(splits.train) if splits.has_several else None
    weights = losses.class_weights(settings.train, splits.labels, [counts[label] for label in splits.labels], n_rows)
    weights = None if weights is None else weights.to(device)
    train = settings.train

    def loss(logits: torch.Tensor, batch: batching.Batch) -> torch.Tensor:
        supervised = losses.supervised(
            logits, batch.label_ids, train.label_smoothing, weights, focal_gamma=train.focal_gamma
        )
        if batch.teacher_logits is None:
            return supervised
        return losses.distilled(supervised, logits, batch.teacher_logits, settings.distillation, splits.has_several)

    return loss


def _augmented(settings: Config, examples: list[Example], watch: Watch) -> tuple[list[Example], tuple[str, ...]]:
    """Return the training examples with the copies that the settings request, and a sentence about these."""
    kinds = augmentation.kinds_of(settings.augmentation)
    if not kinds:
        return examples, ()
    watch(Phase("augmenting"))
    augmented = augmentation.with_copies(examples, settings.augmentation, settings.train.seed)
    texts = [(example.text, example.text_pair) for example in augmented]
    n = len(examples)
    n_equal = sum(texts[i] == texts[i % n] for i in range(n, len(augmented)))
    kind_names = ", ".join(kinds)
    return augmented, (
        f"{len(augmented) - n:,} changed copies of training texts ({kind_names}); {n_equal:,} are equal to their text",
    )


def _teacher_logits(
    teachers: Sequence[Run],
    examples: Sequence[Example],
    splits: Splits,
    place: distillation.Place,
    settings: DistillationConfig,
    watch: Watch,
) -> np.ndarray:
    """Return the teachers' logits for the training texts, copies included, float32 [N, C]; for several, their mean."""
    all_logits = []
    for teacher in teachers:
        phase = Phase(f"computing the logits of the teacher {teacher.name}", n_total=len(examples))
        watch(phase)
        logits, note = distillation.logits(
            teacher, examples, splits.labels, place, lambda n, phase=phase: watch(replace(phase, n_done=n))
        )
        watch(replace(phase, n_done=len(examples), notes=(note,)))
        all_logits.append(logits)
    return distillation.mean_logits(all_logits, settings.temperature, splits.has_several)


def _with_prefix(job: loop.Job, settings: Config, watch: Watch) -> loop.Job:
    """Return the job with the frozen layers' output for the rows that are read more than once.

    Validation rows always are: for an evaluation, and for the predictions. The choice must not depend on what the cache
    holds, or a resumed run could differ in its last bits from one never interrupted.
    """
    if job.classifier.plan.n_prefix_layers == 0:
        return job
    splits = {"validation": replace(job.validation, taken_from=None)}
    if settings.model.prefix or job.length.n_steps > job.length.n_epoch_steps * job.train.n_variants:
        splits = {"train": job.train, "validation": job.validation}
    for name, split in splits.items():
        size = f"{name}: {job.classifier.prefix_mib(split):,.1f} MiB"
        n_rows = len(split) if split.taken_from is None else sum(map(len, split.taken_from.splits))
        phase = Phase("computing the frozen layers' output", n_total=n_rows, notes=(size,))
        watch(phase)
        rows = replace(phase, notes=())
        splits[name], note = job.classifier.with_prefix(split, lambda n, rows=rows: watch(replace(rows, n_done=n)))
        watch(replace(phase, n_done=n_rows, notes=(f"{name}: {note}",)))
    return replace(job, **splits)
