"""Sections for rows with several labels only: thresholds, each label by itself, which labels occur together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from submillion.judging.metrics import leading
from submillion.judging.metrics.thresholds import MIN_POSITIVES
from submillion.reports.figures import MAX_CLASSES, shown_labels
from submillion.reports.run import Mistake, Report, Several
from submillion.reports.sections import Section, Table, quoted
from submillion.text import interval, percent

IN_BINS = (
    "All label decisions in 15 bins by their probability, a larger point for more of them: below the dashed line "
    "labels are true less often than their probability says. ECE is the mean distance from that line, each bin "
    "weighted by its decisions."
)


def unit(report: Report) -> str:
    """Return what a class is called."""
    return "class" if report.several is None else "label"


def about_thresholds(report: Report, of_several: Several) -> list[str]:
    """Return how thresholds were chosen and on which rows, in sentences."""
    span = _thresholds(of_several)
    if of_several.how not in ("one", "each"):
        return [f"A label is predicted from a probability of {span} (train.threshold)."]
    what = "micro-F1 is highest" if of_several.how == "one" else "its own F1 is highest"
    lines = [
        f"A label is predicted from a probability of {span}, where {what} on the {of_several.n_validation:,} "
        f"validation rows (train.threshold: {of_several.how})."
    ]
    if report.split == "validation":
        lines.append(
            "No row is judged by a threshold that was chosen on it: each fifth of the rows uses those of "
            "the other four fifths."
        )
    if of_several.few:
        names = ", ".join(quoted(label) for label in of_several.few[:MAX_CLASSES])
        more = f" and {len(of_several.few) - MAX_CLASSES} more" if len(of_several.few) > MAX_CLASSES else ""
        lines.append(
            f"Fewer than {MIN_POSITIVES} validation rows have {names}{more}: they have the threshold of all labels."
        )
    return lines


def _thresholds(of_several: Several) -> str:
    least, most = min(of_several.thresholds), max(of_several.thresholds)
    return f"{least:.3f}" if least == most else f"{least:.3f} to {most:.3f}, each label from its own"


def labels(report: Report, of_several: Several) -> Section:
    """Precision, recall, F1 and average precision of each label, with its threshold."""
    there = [i for i, each in enumerate(report.classes) if each.n_true + each.n_predicted]
    worst = min(there, key=lambda i: report.classes[i].f1.value, default=None)
    title = "No label occurs or is predicted"
    if worst is not None:
        is_any_worse = report.classes[worst].f1.value < max(report.classes[i].f1.value for i in there)
        who = f"{quoted(report.labels[worst])} has the lowest F1" if is_any_worse else "All labels have the same F1"
        title = f"{who}: {interval(report.classes[worst].f1)}"
    rows = [
        (
            label,
            f"{each.n_true:,}",
            f"{threshold:.3f}",
            *(interval(score) if score.n else "–" for score in (each.precision, each.recall, each.f1)),
            interval(precision) if each.n_true else "–",
        )
        for label, each, threshold, precision in zip(
            report.labels, report.classes, of_several.thresholds, of_several.precisions, strict=True
        )
    ]
    heads = ("label", "rows", "threshold", "precision", "recall", "F1", "average precision")
    limit = f"Of {len(report.labels)} labels, the {MAX_CLASSES} with the lowest F1 are drawn. "
    return Section(
        anchor="labels",
        nav="Labels",
        title=title,
        figure="classes",
        reading=f"{limit if len(report.labels) > MAX_CLASSES else ''}Precision: of the rows that get the label, the "
        "share that has it. Recall: of the rows that have it, the share that gets it. F1 is their harmonic mean. Lines "
        "are 95 % intervals (Wilson).",
        tables=(Table("Each label", heads, rows), _decisions(report)),
    )


def _decisions(report: Report) -> Table:
    """The four counts of each label."""
    n = leading(report.scores[report.split])[1].n
    rows = []
    for label, each in zip(report.labels, report.classes, strict=True):
        right = round(each.precision.value * each.n_predicted)
        missed, added = each.n_true - right, each.n_predicted - right
        rows.append((label, *(f"{count:,}" for count in (right, missed, added, n - right - missed - added))))
    heads = ("label", "has it, gets it", "has it, does not get it", "gets it, does not have it", "neither")
    return Table(f"Outcomes of {n:,} rows, for each label", heads, rows)


def together(report: Report, of_several: Several) -> Section:
    """Which labels occur together, and how many a row has."""
    counts = np.array(of_several.together)
    both = np.triu(counts, 1)
    title = "No row has two labels"
    if both.any():
        a, b = (int(i) for i in np.unravel_index(both.argmax(), both.shape))
        rows = "1 row has" if both[a, b] == 1 else f"{both[a, b]:,} rows have"
        title = f"{rows} both {quoted(report.labels[a])} and {quoted(report.labels[b])}, more than any other two"
    means = [_mean(of_rows) for of_rows in (of_several.n_true, of_several.n_predicted)]
    shown = len(shown_labels(of_several.together))
    limit = f"Of {len(report.labels)} labels, the {shown} with most rows are drawn. " if shown < len(counts) else ""
    return Section(
        anchor="together",
        nav="Together",
        title=title,
        sentences=(f"A row has {means[0]:.2f} labels on average, and gets {means[1]:.2f}.",),
        figure="together",
        reading=f"{limit}Each line is a label: of the {report.split} rows that have it, how many have the other one "
        "too, and their share of the line, which is also the colour. On the diagonal are its rows.",
        tables=(_numbers_of_labels(of_several),),
    )


def _mean(of_rows: Sequence[int]) -> float:
    return sum(number * n for number, n in enumerate(of_rows)) / sum(of_rows)


def _numbers_of_labels(of_several: Several) -> Table:
    n, most = sum(of_several.n_true), max(len(of_several.n_true), len(of_several.n_predicted))
    rows = []
    for number in range(most):
        pair = [of[number] if number < len(of) else 0 for of in (of_several.n_true, of_several.n_predicted)]
        rows.append((str(number), *(cell for count in pair for cell in (f"{count:,}", percent(count / n)))))
    return Table("Rows by their number of labels", ("labels", "have as many", "share", "get as many", "share"), rows)


def calibration_title(report: Report) -> str:
    """Return whether labels are true as often as their probabilities say."""
    before = report.calibration.before
    n = sum(each.n_true for each in report.classes)
    n_rows = leading(report.scores[report.split])[1].n
    expected = sum(each.confidence * each.accuracy.n for each in before)
    more = "more" if expected > n else "fewer"
    return (
        f"By their probabilities rows would have {expected / n_rows:.2f} labels on average, {more} than the "
        f"{n / n_rows:.2f} that they have"
    )


def about_mistake(mistake: Mistake) -> str:
    """Return what is said about a mistake: the row's labels, and its surest wrong decision."""
    has = _listed(mistake.label)
    wrong = quoted(str(mistake.wrong))
    decision = f"{wrong} is predicted with probability {mistake.confidence:.4f}"
    if str(mistake.wrong) not in mistake.predicted:
        decision = f"{wrong} is not predicted: probability {1 - mistake.confidence:.4f}"
    return f"{mistake.id} · {has} · {decision}"


def _listed(names: str | tuple[str, ...]) -> str:
    if not names:
        return "no label"
    return f"label{'s' if len(names) > 1 else ''} {', '.join(quoted(name) for name in names)}"
