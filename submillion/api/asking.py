"""Rows to label: `submillion.ask`.

Two purposes that need different rows. To know the accuracy on a file: a stratified sample of it (`judging.sampling`).
To learn: the rows that a training is most likely to gain from (`judging.choosing`), which say nothing about the
accuracy, since they are the hard ones. What comes back is read by `answered` and by `data.filled`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from submillion import data, runs
from submillion.api import unlabelled
from submillion.api.unlabelled import Opened, Watch, not_watched
from submillion.data import filled
from submillion.data.duplicates import key_of
from submillion.errors import ConfigError, DataError
from submillion.judging import choosing, sampling
from submillion.judging.sampling import Worth
from submillion.runs import Which
from submillion.text import did_you_mean, shown

Purpose = Literal["know", "learn"]
OF_SAMPLE = ("stratum", "stratum_rows")  # columns of a sample: a row's stratum, and how many rows that has
DRAWN = "stratum_drawn"  # and how many of these are in the sample
_N, _HALF_WIDTH = "-n (n)", "--half-width (half_width)"  # as messages name them
_SHOWN_LABELS = (30, 60, 100, 150, 200, 400)


@dataclass(frozen=True)
class ToLabel:
    """Rows that are worth a label, in the file `path`, whose column `label` is to be filled in.

    ids: the rows', in the file's order · n_rows: those that they were chosen from · n_trained_on: rows of the input
    that the run was trained on, which are left out, None for runs from before that was noted · classes: the labels to
    give · worth: how well this many labels, and other numbers, will tell the accuracy; empty for rows to learn from.
    """

    path: Path
    purpose: Purpose
    column: str
    classes: tuple[data.Label, ...]
    ids: tuple[str, ...]
    n_rows: int
    n_trained_on: int | None
    worth: tuple[Worth, ...]


def ask(  # noqa: PLR0913 - as the command has options
    run: Which,
    source: object,
    n: int | None = None,
    purpose: Purpose = "know",
    half_width: float | None = None,
    output: Path | str = "ask.csv",
    seed: int = 0,
    watch: Watch = not_watched,
    force: bool = False,
) -> ToLabel:
    """Write the rows of a file without labels that are worth a label, n of them, into a CSV file to fill in.

    run: what `train` returns, a run's folder, or a run's name or hash in `runs/`. source: a file's path, or rows in
    memory as `predict` takes them. Rows that the run was trained on are left out.

    purpose: "know", to know the accuracy on the file: a random sample, in which unsure rows are more frequent than in
    the file, so that fewer labels suffice; `evaluate(run, source, labelled=output)` gives the accuracy on all rows with
    its interval. "learn", to train on: the least sure rows, unlike each other, without repeated texts; they tell no
    accuracy. `train(start=run, data=output)` trains on either kind.

    half_width: in place of n, as many labels as are expected to give an interval of this half-width, 0.03 for 3 points
    · output: must end in .csv; `force`: it may replace a file that an earlier call did not write · seed: decides which
    rows are drawn · watch: called with the rows predicted and all rows. ConfigError, RunError or DataError says what is
    wrong; nothing is written then.

        rows = submillion.ask("reviews", "new.csv", 60)
        print(rows.path, rows.worth[0].half_width)
    """
    _refuse(n, purpose, half_width, seed)
    run, path = runs.load(run), os.fsdecode(source) if isinstance(source, str | os.PathLike) else None
    target = runs.Output(Path(os.path.expanduser(output)), "ask", force)
    _check_output(target, path)
    opened = unlabelled.opened(run, source, watch)
    if half_width is not None:
        n = sampling.labels_for(opened.confidence, half_width)
    if n is None or n > len(opened.examples):
        raise DataError(
            f"{n:,} rows are asked for, but {path or 'the rows'} has {len(opened.examples):,} that {run.path} "
            "was not trained on: ask for fewer, or give more rows"
        )
    rows, columns = _to_know(opened, n, seed) if purpose == "know" else _to_learn(opened, n, seed)
    target.write(_as_csv(opened, source, rows, columns))
    counts = [] if purpose == "learn" else [n, *(each for each in _SHOWN_LABELS if n != each < len(opened.examples))]
    return ToLabel(
        path=target.path,
        purpose=purpose,
        column=str(run.config().data.label),
        classes=run.classes(),
        ids=tuple(opened.examples[row].id for row in rows.tolist()),
        n_rows=len(opened.examples),
        n_trained_on=opened.n_trained_on,
        worth=tuple(sampling.worth(opened.confidence, each) for each in counts),
    )


def _refuse(n: int | None, purpose: str, half_width: float | None, seed: int) -> None:
    problems = []
    if purpose not in get_args(Purpose):
        problems.append(f"--for (purpose) is {shown(purpose)}: {did_you_mean(purpose, get_args(Purpose))}")
    if (n is None) == (half_width is None):
        which = f"neither {_N} nor {_HALF_WIDTH} is" if n is None else f"{_N} and {_HALF_WIDTH} are both"
        problems.append(f"{which} set: give either how many rows to label, or how wide the interval may be")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1):
        problems.append(f"{_N} is {shown(n)}: give the number of rows to label, 1 or more")
    if half_width is not None and not (isinstance(half_width, int | float) and 0 < half_width < 0.5):
        problems.append(f"{_HALF_WIDTH} is {shown(half_width)}: give a share between 0 and 0.5, 0.03 for 3 points")
    if half_width is not None and purpose == "learn":
        problems.append(f"{_HALF_WIDTH} is for labels that measure accuracy: to learn, give {_N}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        problems.append(f"--seed (seed) is {shown(seed)}: give a whole number from 0 to 2**32 - 1")
    if problems:
        raise ConfigError(*problems)


def _check_output(target: runs.Output, source: str | None) -> None:
    from submillion import prediction

    if target.path.suffix.lower() != ".csv":
        raise ConfigError(f"{target.path}: rows to label are written as CSV, for any spreadsheet: end the name in .csv")
    prediction.check_output(target, source)


def _to_know(opened: Opened, n: int, seed: int) -> tuple[np.ndarray, dict[str, list[int]]]:
    """The rows of a stratified sample, in random order, and the columns that say how it was drawn."""
    design = sampling.design(opened.confidence, n)
    rows = design.draw(seed)
    strata = design.stratum[rows]
    cells = ((strata + 1).tolist(), design.sizes[strata].tolist(), design.n_drawn[strata].tolist())
    return rows, dict(zip((*OF_SAMPLE, DRAWN), cells, strict=True))


def _to_learn(opened: Opened, n: int, seed: int) -> tuple[np.ndarray, dict[str, list[int]]]:
    """The rows to learn from, in random order: of equal texts the first, unless there are too few others."""
    from submillion.training import evaluation

    margins = choosing.margins(opened.probs)
    places = {key_of(example): row for row, example in reversed([*enumerate(opened.examples)])}
    different = np.sort(np.fromiter(places.values(), np.int64))
    if len(different) < n:
        raise DataError(
            f"{n:,} rows are asked for, but there are {len(different):,} different texts that the run was not trained "
            "on: ask for fewer"
        )
    unsure = different[choosing.candidates(margins[different], n)]
    features = evaluation.features(opened.run, [opened.examples[row] for row in unsure.tolist()])
    rows = unsure[choosing.spread_out(features, margins[unsure], n, seed)]
    return np.random.default_rng(seed).permutation(rows), {}


def _as_csv(opened: Opened, source: object, rows: np.ndarray, columns: dict[str, list[int]]) -> str:
    """The file to fill in: ids, texts, the empty label, the run's prediction, and for a sample how it was drawn."""
    settings = opened.run.config().data
    cells: dict[str, Sequence[object]] = {"id": [opened.examples[row].id for row in rows.tolist()]}
    shown_cells = filled.cells_to_show(source, settings, opened.numbers[rows].tolist())
    predicted, confidence = opened.predicted, opened.confidence
    own: dict[str, Sequence[object]] = {
        str(settings.label): [""] * len(rows),
        "predicted": [predicted[row] for row in rows.tolist()],
        "confidence": [f"{confidence[row]:.4f}" for row in rows.tolist()],
        **columns,
    }
    if twice := [name for name in (*shown_cells, *own) if [*cells, *shown_cells, *own].count(name) > 1]:
        names = ", ".join(map(repr, dict.fromkeys(twice)))
        raise ConfigError(f"the file would have two columns {names}: the run reads a column of that name; rename it")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*cells, *shown_cells, *own])
    writer.writerows(zip(*cells.values(), *shown_cells.values(), *own.values(), strict=True))
    return text.getvalue()
