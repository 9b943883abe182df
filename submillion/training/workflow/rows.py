"""What is made of the rows before the first step: changed copies, the teachers' logits, the frozen layers' output.

Each is computed by its own module; here it is decided for which rows, and shown to the watcher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from submillion.config import Config, DistillationConfig
from submillion.data import Example, augmentation
from submillion.runs import Run
from submillion.training import distillation, loop
from submillion.training.workflow.phases import Phase, Watch


def augmented(settings: Config, examples: list[Example], watch: Watch) -> tuple[list[Example], tuple[str, ...]]:
    """Return the training examples with the copies that the settings want, and a sentence about these."""
    kinds = augmentation.kinds_of(settings.augmentation)
    if not kinds:
        return examples, ()
    watch(Phase("augmenting"))
    found = augmentation.with_copies(examples, settings.augmentation, settings.train.seed)
    texts = [(example.text, example.text_pair) for example in found]
    n = len(examples)
    n_equal = sum(texts[i] == texts[i % n] for i in range(n, len(found)))
    named = ", ".join(kinds)
    return found, (f"{len(found) - n:,} changed copies of training texts ({named}); {n_equal:,} equal their text",)


def teacher_logits(
    teachers: Sequence[Run],
    examples: Sequence[Example],
    labels: tuple[str, ...],
    place: distillation.Place,
    settings: DistillationConfig,
    watch: Watch,
) -> np.ndarray:
    """Return the teachers' logits of the training texts, copies included, float32 [N, C]; of several, their mean."""
    found = []
    for teacher in teachers:
        phase = Phase(f"computing the logits of the teacher {teacher.name}", n_total=len(examples))
        watch(phase)
        logits, note = distillation.logits(
            teacher, examples, labels, place, lambda n, phase=phase: watch(replace(phase, n_done=n))
        )
        watch(replace(phase, n_done=len(examples), notes=(note,)))
        found.append(logits)
    return distillation.mean_logits(found, settings.temperature)


def with_prefix(job: loop.Job, settings: Config, watch: Watch) -> loop.Job:
    """Return the job with the frozen layers' output beside the rows that are read more than once.

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
        phase = Phase("computing the frozen layers' output", n_total=len(split), notes=(size,))
        watch(phase)
        rows = replace(phase, notes=())
        splits[name], note = job.classifier.with_prefix(split, lambda n, rows=rows: watch(replace(rows, n_done=n)))
        watch(replace(phase, n_done=len(split), notes=(f"{name}: {note}",)))
    return replace(job, **splits)
