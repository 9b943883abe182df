"""What a run would answer at stated errors: the section of reports, and the sentences of `evaluate` and `predict`.

The thresholds and what they promise are those of `judging.confidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from submillion.judging import confidence
from submillion.judging.confidence import AnsweringScores, Selection
from submillion.judging.metrics import Predictions, Score, share
from submillion.reports.sections import Section, Table, as_sentences
from submillion.text import percent, percents

MAX_ERRORS = (0.01, 0.02, 0.05)
_NONE = "No error of 1, 2 or 5 % can be promised"
_ENDS = (
    "The promise holds for rows like the validation rows and ends when the data shift: confident errors are answered."
)


@dataclass(frozen=True)
class Acting:
    """What would be answered at one stated error, on the judged rows; None if no threshold keeps the promise, and
    `problem` says why. by_class: the share of each true class's rows that is answered."""

    max_error: float
    answers: AnsweringScores | None
    by_class: list[Score]
    problem: str | None


def read(validation: Predictions, judged: Predictions, n_choices: float = 1.0) -> list[Acting]:
    """Return what would be answered at each of `MAX_ERRORS`; empty if rows have several labels. n_choices: as in
    `confidence.selection`."""
    if validation.has_several:
        return []
    return [_acting(confidence.selection(validation, each, n_choices), judged) for each in MAX_ERRORS]


def _acting(selected: Selection, judged: Predictions) -> Acting:
    max_error = selected.max_error
    if selected.threshold is None:
        return Acting(max_error, None, [], selected.problem)
    answered, truth = selected.answered(judged.probs), judged.truth
    shares = [share(answered, judged.groups, of_class) for of_class in truth.T]
    return Acting(max_error, confidence.answering_scores(selected, judged), shares, None)


_SELECTED = (
    "These rows also chose the checkpoint, so they look slightly too good: each threshold is tested at 5 % "
    "divided by the number of checkpoints that they might as well have chosen."
)


def section(levels: Sequence[Acting], labels: Sequence[str], split: str, is_selected: bool) -> Section:
    """Return what would be answered, overall and by class; is_selected: validation chose among checkpoints."""
    possible = [each for each in levels if each.answers is not None]
    shares = [f"{percent(_share(each).value)} at {percent(each.max_error)} errors" for each in possible]
    rows = [
        (percent(each.max_error), percents(_share(each)), "–" if error is None else percents(error))
        if each.answers is not None
        else (percent(each.max_error), "–", "–")
        for each in levels
        for error in [None if each.answers is None else each.answers.error]
    ]
    tables = [Table("At a stated error", ("error, at most", f"answered on {split}", "of these wrong"), rows)]
    if possible:
        heads = ("class", *(f"at {percent(each.max_error)}" for each in possible))
        by_class = [
            (label, *(percents(each.by_class[i]) if each.by_class[i].n else "–" for each in possible))
            for i, label in enumerate(labels)
        ]
        tables.append(Table("Rows of each class that are answered", heads, by_class))
    return Section(
        anchor="acting",
        nav="Acting",
        title=f"Would be answered: {', '.join(shares)}" if shares else _NONE,
        sentences=(
            "`submillion predict --max-error` answers only where, with 95 % confidence, at most that share of answers "
            "is wrong, and leaves the other rows without a label. Thresholds are tested on validation rows.",
            *((_SELECTED,) if is_selected else ()),
            _ENDS,
            *as_sentences(each.problem for each in levels if each.problem is not None),
        ),
        tables=tuple(tables),
    )


def _share(acting: Acting) -> Score:
    assert acting.answers is not None, "a threshold keeps the promise"
    return acting.answers.answered


@dataclass(frozen=True)
class AnsweredHere:
    """The share of rows that would be answered at a stated error: of a file without labels, and of the validation rows;
    None if no threshold keeps the promise."""

    max_error: float
    validation: Score | None
    here: Score | None


def here(validation: Predictions, probs: np.ndarray, n_choices: float = 1.0) -> tuple[AnsweredHere, ...]:
    """Return the shares of a file's rows, by their probabilities, float64 [N, C], and of validation's, at each of
    `MAX_ERRORS`; n_choices: as in `confidence.selection`."""
    selected = [confidence.selection(validation, max_error, n_choices) for max_error in MAX_ERRORS]
    return tuple(
        AnsweredHere(
            each.max_error, share(each.answered(validation.probs), validation.groups), share(each.answered(probs))
        )
        if each.threshold is not None
        else AnsweredHere(each.max_error, None, None)
        for each in selected
    )


def section_of_shift(levels: Sequence[AnsweredHere]) -> Section:
    """Return the share of a file's rows that would be answered, next to validation's."""
    rows = [
        (
            percent(each.max_error),
            *("–" if answered is None else percents(answered) for answered in (each.validation, each.here)),
        )
        for each in levels
    ]
    possible = [each for each in levels if each.here is not None and each.validation is not None]
    title = f"{_NONE}, here or on validation"
    if possible:
        last = possible[-1]
        shares = [percent(each.value) for each in (last.here, last.validation) if each is not None]
        title = (
            f"At {percent(last.max_error)} errors, {shares[0]} of rows would be answered ({shares[1]} on validation)"
        )
    return Section(
        anchor="acting",
        nav="Acting",
        title=title,
        sentences=(
            "A smaller share than on validation means that the model is less sure here and that "
            f"abstaining catches some of the shift, not that the error is kept. {_ENDS}",
        ),
        tables=(Table("Answered with --max-error", ("error, at most", "on validation", "here"), rows),),
    )


def kept(scores: AnsweringScores) -> str:
    """Return what became of a stated error on labelled rows, as `evaluate` prints it."""
    line = f"{percents(scores.answered)} of {scores.answered.n:,} rows are answered"
    if scores.error is None:
        return f"{line}: none is sure enough for an error of at most {percent(scores.max_error)}"
    return f"{line}; of these {percents(scores.error)} are wrong, and at most {percent(scores.max_error)} was asked for"


def answered(max_error: float, n: int, n_rows: int) -> str:
    """Return how many rows without labels were answered, as `predict` prints it."""
    return (
        f"{n:,} rows are answered ({percent(n / max(1, n_rows))}), {n_rows - n:,} have no label: at most "
        f"{percent(max_error)} of the answers are wrong, with 95 % confidence, if rows are like the validation rows"
    )
