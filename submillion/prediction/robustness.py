"""How a finished run's accuracy falls when its rows are perturbed: typing mistakes, case, missing parts.

The ways to perturb a text are those of `augmentation`, at its three strengths; the paired test is `comparison`'s. Rows
are perturbed by their ids alone, so that every run meets the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from submillion import prediction, runs
from submillion.config import AugmentationKind
from submillion.data import Example, augmentation
from submillion.errors import ConfigError
from submillion.judging import comparison, metrics
from submillion.judging.comparison import Difference
from submillion.judging.metrics import Predictions, Score
from submillion.prediction import Evaluation
from submillion.runs import Run, Which
from submillion.training.evaluation import predictions_of

Predict = Callable[[Sequence[Example]], Predictions]


@dataclass(frozen=True)
class Perturbed:
    """What one perturbation does at one rate: rows whose text it changed, rows whose predicted class changed, the
    accuracy, its difference from that of the rows as they are, and that test's p after Holm's correction for all."""

    kind: AugmentationKind
    rate: float
    n_changed: int
    n_flipped: int
    accuracy: Score
    difference: Difference
    p_holm: float = 1.0


@dataclass(frozen=True)
class Robustness:
    """A run's scores on rows as they are, and what each perturbation makes of its accuracy, strengths rising."""

    plain: Evaluation
    perturbed: tuple[Perturbed, ...]

    @property
    def by_kind(self) -> dict[str, list[Perturbed]]:
        """Return each kind's measurements, strengths rising."""
        return {kind: list(found) for kind, found in groupby(self.perturbed, lambda each: each.kind)}


def measure(
    run: Which,
    source: object,
    kinds: Sequence[AugmentationKind] | None = None,
    device: str | None = None,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Robustness:
    """Return a run's robustness on labelled rows, as `evaluate` takes them.

    kinds None means all; first-column only where texts have several columns. The opening of the rows is noted once,
    as `evaluate` does. `watch` is called with the rows done and all that there are to do. ConfigError for first-column
    where texts have one column.
    """
    run = runs.load(run)
    wanted = applicable(kinds, run)
    rates: list[tuple[AugmentationKind, float]] = [
        (kind, rate) for kind in wanted for rate in augmentation.STRENGTHS[kind]
    ]
    classifier, settings, examples = prediction.open_labelled(run, source, device)
    n_all, n_done = len(examples) * (1 + len(rates)), 0

    def predict(rows: Sequence[Example]) -> Predictions:
        return predictions_of(classifier, settings, rows, lambda n: watch(n_done + n, n_all))

    plain, found = predict(examples), list[Perturbed]()
    for kind, rate in rates:
        n_done += len(examples)
        found.append(_perturbed(kind, rate, examples, plain, predict))
    watch(n_all, n_all)
    evaluation = Evaluation(metrics.score(plain), len(examples), runs.count_trained_on(run, examples))
    return Robustness(evaluation, tuple(_corrected(found)))


def applicable(kinds: Sequence[AugmentationKind] | None, run: Run) -> list[AugmentationKind]:
    """Return the kinds that can change the run's rows, of all (None) or of those given, each once.

    ConfigError for first-column where texts have one column.
    """
    has_columns = not isinstance(run.config().data.text, str)
    if kinds is None:
        return [kind for kind in augmentation.STRENGTHS if kind != "first-column" or has_columns]
    if "first-column" in kinds and not has_columns:
        raise ConfigError("first-column takes the first of several columns away, and the run has one text column")
    return list(dict.fromkeys(kinds))


def _perturbed(
    kind: AugmentationKind, rate: float, examples: Sequence[Example], plain: Predictions, predict: Predict
) -> Perturbed:
    """Only rows that change are predicted again."""
    new = [augmentation.perturbed(example, kind, rate, ["robustness", example.id]) for example in examples]
    changed = [i for i, both in enumerate(zip(examples, new, strict=True)) if len({*map(_texts, both)}) > 1]
    predicted = plain.predicted.copy()
    if changed:
        predicted[changed] = predict([new[i] for i in changed]).predicted
    right = predicted == plain.label_ids
    return Perturbed(
        kind=kind,
        rate=rate,
        n_changed=len(changed),
        n_flipped=int((predicted != plain.predicted).sum()),
        accuracy=metrics.wilson(int(right.sum()), len(right)),
        difference=comparison.mcnemar(right, plain.predicted == plain.label_ids),
    )


def _texts(example: Example) -> tuple[str, str | None]:
    return example.text, example.text_pair


def _corrected(found: Sequence[Perturbed]) -> Iterator[Perturbed]:
    corrected = comparison.holm(np.array([each.difference.p for each in found]))
    return (replace(each, p_holm=float(p)) for each, p in zip(found, corrected, strict=True))
