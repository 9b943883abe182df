"""A shift report on rows with several labels: how often each is predicted, and that no score is estimated."""

from __future__ import annotations

from submillion.judging.comparison import LEVEL, p_value
from submillion.judging.metrics import Score
from submillion.judging.shift import LabelRates
from submillion.reports.figures import MAX_CLASSES
from submillion.reports.sections import Section, Table, quoted
from submillion.reports.shift.reading import OfRun, ShiftReport
from submillion.text import interval, percent, percents, plural


def rates_of(one: OfRun) -> LabelRates:
    """Return the rates of a run whose rows have several labels."""
    assert isinstance(one.estimates, LabelRates), "rows have one label each"
    return one.estimates


def answer(report: ShiftReport, cautions: tuple[str, ...]) -> Section:
    """What has changed, and that no score is estimated."""
    one = report.runs[0]
    rates = rates_of(one)
    n_told = sum(p < LEVEL for p in rates.p_holm)
    labels = "label is" if n_told == 1 else "labels are"
    title = f"{n_told} of {len(report.labels)} {labels} predicted more often or less often than on validation"
    if n_told == 0:
        title = "Labels are predicted as often as on validation, as far as these rows can tell"
    rows = [
        ("labels per row", _mean(rates.per_row_validation), _mean(rates.per_row)),
        ("rows that get none", percents(rates.without_validation), percents(rates.without)),
    ]
    return Section(
        anchor="answer",
        nav="Answer",
        title=title,
        sentences=(
            "How much of this is right is not estimated: for rows with several labels, no method here can find "
            "micro-F1, or the share of right decisions, without labels. Label some rows and `submillion evaluate` "
            "measures both.",
            *_seen(one, rates),
            *cautions,
        ),
        tables=(Table("Labels per row, predicted", ("", "validation", "here"), rows),),
    )


def _seen(one: OfRun, rates: LabelRates) -> tuple[str, ...]:
    if not one.n_trained_on:
        return ()
    return (
        f"{one.n_trained_on:,} of {rates.n:,} rows {plural(one.n_trained_on, 'was', 'were')} trained on: "
        "they say nothing about new rows.",
    )


def _mean(score: Score) -> str:
    return interval(score, digits=2)


def labels(report: ShiftReport) -> Section:
    """Each label's share of rows, predicted here and on validation, true in training."""
    one = report.runs[0]
    rates = rates_of(one)
    moved = max(range(len(report.labels)), key=lambda i: abs(rates.predicted[i].value - _before(rates, i)))
    title = (
        f"{quoted(report.labels[moved])} is predicted for {percent(rates.predicted[moved].value)} of rows, "
        f"{percent(_before(rates, moved))} on validation"
    )
    rows = [
        (
            label,
            percent(one.train_shares[i]),
            percents(rates.predicted_validation[i]),
            percents(rates.predicted[i]),
            p_value(rates.p_holm[i]),
        )
        for i, label in enumerate(report.labels)
    ]
    most = f", the {MAX_CLASSES} that moved most" if len(report.labels) > MAX_CLASSES else ""
    return Section(
        anchor="labels",
        nav="Labels",
        title=title,
        sentences=(
            "Predictions are compared with predictions, by the same thresholds, so the model's usual errors do not "
            "pass for a shift. A label that is told apart shows that something has changed, not what: other labels, "
            "other texts, or errors that now fall elsewhere.",
        ),
        figure="shares",
        reading=f"One label per line{most}; lines are 95 % intervals (Wilson).",
        tables=(
            Table(
                "Shares of rows that have each label; p is Fisher's exact test, corrected by Holm over all labels",
                ("label", "training, true", "validation, predicted", "here, predicted", "p (Holm)"),
                rows,
            ),
        ),
    )


def _before(rates: LabelRates, i: int) -> float:
    return rates.predicted_validation[i].value
