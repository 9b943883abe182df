"""Finished runs, one or several, that give class probabilities together: the mean of theirs.

Owns that their labels agree, that they work in one precision everywhere, and whose columns a text is read from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from submillion import runs
from submillion.config import Config, DataConfig, Precision
from submillion.data import Example, Label
from submillion.errors import RunError
from submillion.model import backbone, batching
from submillion.model.classifier import Classifier, precision_of
from submillion.model.packed import native
from submillion.runs import Run, Which
from submillion.training import evaluation, workers


@dataclass(frozen=True)
class Members:
    """What any process needs to compute the same: finished runs, the device, each run's precision on it, threads."""

    runs: tuple[Run, ...]
    device: str
    precisions: tuple[Precision, ...]
    n_threads: int

    @cached_property
    def configs(self) -> tuple[Config, ...]:
        """Return each run's settings."""
        return tuple(run.config() for run in self.runs)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Return the labels, in the order of the first run."""
        return self.runs[0].labels()

    @cached_property
    def classes(self) -> tuple[Label, ...]:
        """Return the labels as the first run's training rows had them."""
        return self.runs[0].classes()

    @cached_property
    def readings(self) -> tuple[DataConfig, ...]:
        """Return the ways in which the runs read rows, each once: their text columns."""
        return tuple(dict.fromkeys(map(_reading, self.configs)))

    @property
    def reading_of(self) -> tuple[int, ...]:
        """Return which of the `readings` is each run's."""
        return tuple(self.readings.index(_reading(settings)) for settings in self.configs)


def members(which: Which | Sequence[Which], device: str | None = None) -> Members:
    """Return finished runs that may vote together, each as `runs.load` takes it; device None is the best there is here.

    RunError if one is unfinished or damaged, or if their labels are not the same.
    """
    several = [which] if isinstance(which, str) or not isinstance(which, Sequence) else which
    if not several:
        raise RunError("no run is given: name one, or several to predict together")
    found = tuple(map(runs.load, several))
    for run in found:
        runs.verify(run)
    problems = [problem for run in found[1:] for problem in _other_labels(found[0], run)]
    if problems:
        raise RunError(*problems)
    place = backbone.choose_device(device)
    absolute = tuple(Run(run.path.resolve()) for run in found)
    return Members(absolute, place.type, tuple(precision_of(run, place) for run in absolute), torch.get_num_threads())


class Ensemble:
    """Loaded members."""

    def __init__(self, members: Members) -> None:
        native.keep_few_kernels()
        self.members, self.labels = members, members.labels
        precisions = zip(members.runs, members.precisions, strict=True)
        self.classifiers = [Classifier.load(run, members.device, precision) for run, precision in precisions]

    def probs(
        self, readings: Sequence[Sequence[Example]], watch: Callable[[int], object] | None = None, keep: bool = False
    ) -> np.ndarray:
        """Return the mean of the members' probabilities, float64 [N, C], of rows in each of the members' readings.

        `watch` is called with the number of rows done. `keep` as in `batching.tokenize`.
        """
        with workers.threads(self.members.n_threads):
            return self._probs(readings, watch, keep)

    def _probs(
        self, readings: Sequence[Sequence[Example]], watch: Callable[[int], object] | None, keep: bool
    ) -> np.ndarray:
        found = []
        for number, (classifier, settings, reading) in enumerate(
            zip(self.classifiers, self.members.configs, self.members.reading_of, strict=True)
        ):
            examples = readings[reading]
            split = batching.tokenize(examples, classifier.tokenizer, self.labels, settings.model.max_length, keep)
            predicted = evaluation.predict(
                classifier,
                split,
                settings.train.evaluation_batch_size,
                None if watch is None else self._share(watch, number * len(examples)),
            )
            found.append(predicted.probs[:, [classifier.labels.index(label) for label in self.labels]])
        return found[0] if len(found) == 1 else np.mean(found, axis=0)

    def _share(self, watch: Callable[[int], object], n_before: int) -> Callable[[int], object]:
        return lambda n_done: watch((n_before + n_done) // len(self.classifiers))


def _reading(settings: Config) -> DataConfig:
    return DataConfig(text=settings.data.text, text_pair=settings.data.text_pair)


def _other_labels(first: Run, run: Run) -> list[str]:
    ours, theirs = first.labels(), run.labels()
    if set(ours) == set(theirs):
        return []
    return [
        f"{run.path} gives the labels {', '.join(theirs)}, and {first.path} {', '.join(ours)}: "
        "runs that predict together must have the same labels"
    ]
