"""How a finished run's accuracy falls when its rows are perturbed: typing mistakes, case, missing parts.

The ways to perturb a text are those of `augmentation`, at its three strengths; the paired test is `comparison`'s.
Perturbations depend only on rows' ids, so every run gets the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import get_args

import numpy as np

from submillion import prediction, runs
from submillion.config import AugmentationKind
from submillion.data import Example, augmentation
from submillion.errors import ConfigError
from submillion.judging import comparison, metrics
from submillion.judging.metrics import Predictions, Score
from submillion.prediction import Evaluation
from submillion.reports import robustness as page
from submillion.reports.robustness import Perturbed
from submillion.runs import Run, Which
from submillion.text import closest
from submillion.training.evaluation import predictions_of

Predict = Callable[[Sequence[Example]], Predictions]


@dataclass(frozen=True)
class Robustness:
    """A run's scores on unchanged rows, and its accuracy under each perturbation, strengths rising: the share of right
    rows, of which those with several labels have all right."""

    plain: Evaluation
    perturbed: tuple[Perturbed, ...]

    @property
    def accuracy(self) -> Score:
        """Return the accuracy on unchanged rows."""
        return self.plain.scores["accuracy" if "accuracy" in self.plain.scores else "subset_accuracy"]

    @property
    def by_kind(self) -> dict[str, list[Perturbed]]:
        """Return each kind's measurements, strengths rising."""
        return {kind: list(measured) for kind, measured in groupby(self.perturbed, lambda each: each.kind)}


def measure(
    run: Which,
    rows: object,
    perturb: Sequence[AugmentationKind] | str = "all",
    figure: Path | None = None,
    device: str | None = None,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
    force: bool = False,
) -> Robustness:
    """Return a run's robustness on labelled rows, as `evaluate` takes them.

    perturb: names, in a list or with commas between them; "all" leaves first-column out if texts have one column.
    figure: an .svg or .png file to draw the accuracies to; `force`: it may replace a file that an earlier call did not
    draw. The opening of the rows is recorded once, as in `evaluate`. `watch` is called with the rows done and the rows
    in all. ConfigError for unknown perturbations, first-column if texts have one column, or a figure that cannot be
    written.

        result = submillion.robustness("reviews", "new.csv", perturb="typos,lower")
        print(result.plain["accuracy"].value, result.by_kind["typos"][0].accuracy.value)
    """
    run = runs.load(run)
    kinds = applicable(_kinds(perturb), run)
    output = None if figure is None else runs.Output(figure, "evaluate", force)
    if output is not None:
        page.check_figure(output)
    rates: list[tuple[AugmentationKind, float]] = [
        (kind, rate) for kind in kinds for rate in augmentation.STRENGTHS[kind]
    ]
    notes: list[str] = []
    classifier, examples = prediction.open_labelled(run, rows, device, notes)
    n_all, n_done = len(examples) * (1 + len(rates)), 0

    def predict(subset: Sequence[Example]) -> Predictions:
        return predictions_of(run, classifier, subset, lambda n: watch(n_done + n, n_all))

    plain, measured = predict(examples), list[Perturbed]()
    for kind, rate in rates:
        n_done += len(examples)
        measured.append(_perturbed(kind, rate, examples, plain, predict))
    watch(n_all, n_all)
    evaluation = prediction.scored(run, plain, examples, classifier.labels, notes)
    robustness = Robustness(evaluation, tuple(_corrected(measured)))
    if output is not None:
        page.write_figure(output, robustness.accuracy, robustness.by_kind)
    return robustness


def _kinds(perturb: Sequence[AugmentationKind] | str) -> Sequence[AugmentationKind] | None:
    """Return the perturbations of a list such as "typos,lower", None for "all"; ConfigError names unknown ones."""
    if isinstance(perturb, str) and perturb.strip() == "all":
        return None
    names = [name.strip() for name in perturb.split(",")] if isinstance(perturb, str) else list(perturb)
    allowed = {str(kind): kind for kind in get_args(AugmentationKind)}
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ConfigError(*(_unknown(name, list(allowed)) for name in unknown))
    return [allowed[name] for name in names]


def _unknown(name: str, allowed: Sequence[str]) -> str:
    if name == "all":
        return "--perturb 'all': all cannot be combined with others; give it alone"
    if (meant := closest(name, allowed)) is not None:
        return f"--perturb {name!r}: did you mean {meant!r}? Or give all, alone"
    return f"--perturb {name!r}: allowed: {', '.join(allowed)}; or all, alone"


def applicable(kinds: Sequence[AugmentationKind] | None, run: Run) -> list[AugmentationKind]:
    """Return the kinds that can change the run's rows, of all (None) or the given ones, each once.

    ConfigError for first-column where texts have one column.
    """
    has_columns = not isinstance(run.config().data.text, str)
    if kinds is None:
        return [kind for kind in augmentation.STRENGTHS if kind != "first-column" or has_columns]
    if "first-column" in kinds and not has_columns:
        raise ConfigError("first-column removes the first of several columns, but the run has one text column")
    return list(dict.fromkeys(kinds))


def _perturbed(
    kind: AugmentationKind, rate: float, examples: Sequence[Example], plain: Predictions, predict: Predict
) -> Perturbed:
    """Return one perturbation's effect; only rows that change are predicted again."""
    new = [augmentation.perturbed(example, kind, rate, ["robustness", example.id]) for example in examples]
    changed = [i for i, pair in enumerate(zip(examples, new, strict=True)) if len({*map(_texts, pair)}) > 1]
    predicted = plain.predicted.copy()
    if changed:
        predicted[changed] = predict([new[i] for i in changed]).predicted
    right, is_same = (metrics.equal_rows(predicted, other) for other in (plain.label_ids, plain.predicted))
    return Perturbed(
        kind=kind,
        rate=rate,
        n_changed=len(changed),
        n_flipped=int((~is_same).sum()),
        accuracy=metrics.share(right, plain.groups),
        difference=comparison.mcnemar(right, plain.right, plain.groups),
    )


def _texts(example: Example) -> tuple[str, str | None]:
    return example.text, example.text_pair


def _corrected(measured: Sequence[Perturbed]) -> Iterator[Perturbed]:
    corrected = comparison.holm(np.array([each.difference.p for each in measured]))
    return (replace(each, p_holm=float(p)) for each, p in zip(measured, corrected, strict=True))
