"""The terminal's section about rows to label, and its sentence about an accuracy that rests on a few labels."""

from __future__ import annotations

from collections.abc import Sequence

from submillion.judging.metrics import Score
from submillion.judging.sampling import Worth
from submillion.reports.sections import Section, Table
from submillion.text import percents, plural

_MOST_NAMES = 12  # of labels that may be given


def points(half_width: float) -> str:
    """Return the half-width of an interval of a share, in percentage points.

    >>> points(0.0412)
    '± 4.1 points'
    """
    return f"± {100 * half_width:.1f} points"


def to_know(worth: Sequence[Worth]) -> tuple[str, Table]:
    """Return what the first number of labels is worth, as a sentence, and all numbers as a table."""
    this = worth[0]
    sentence = (
        f"{this.n:,} {plural(this.n, 'label is', 'labels are')} expected to give the accuracy of all rows "
        f"within {points(this.half_width)}; as many "
        f"rows from a plain random sample {points(this.plain_half_width)}. This holds if confidences are as accurate "
        "here as on validation; with more errors, intervals are wider."
    )
    if any(round(each.half_width, 3) > round(each.plain_half_width, 3) for each in worth):
        sentence += (
            " With few labels this sample's interval can be wider than a plain sample's: its spread is estimated from "
            "the labels too, so it takes Student's quantile."
        )
    rows = [
        (f"{each.n:,}", points(each.half_width), points(each.plain_half_width))
        for each in sorted(worth, key=lambda each: each.n)
    ]
    return sentence, Table("Expected intervals", ("labels", "of this sample", "of a plain one"), rows)


TO_LEARN = (
    "These rows, of which the run is least sure and which are unlike each other, are for training. They are "
    "harder than the others, so they say nothing about accuracy; for that, ask with --for know."
)


def to_label(
    title: str, worth: Sequence[Worth], fill_in: tuple[str, Sequence[object]], typed: Sequence[str]
) -> Section:
    """Return the section: what the labels will be worth, which labels may be given, and the commands that come next.

    fill_in: the column to fill in and the labels that the run knows.
    """
    column, classes = fill_in
    names = ", ".join(map(str, classes[:_MOST_NAMES])) + (", ..." if len(classes) > _MOST_NAMES else "")
    sentence, tables = TO_LEARN, ()
    if worth:
        sentence, table = to_know(worth)
        tables = (table,)
    return Section(
        "asked",
        "Rows to label",
        title,
        sentences=(sentence, f"Fill in the column {column!r} from the top, with: {names}."),
        tables=tables,
        code=(("then", "\n".join(typed)),),
    )


def known(accuracy: Score, n_rows: int, plain_half_width: float) -> str:
    """Return what an accuracy on all rows rests on, as `evaluate` prints it."""
    return (
        f"accuracy on all {n_rows:,} rows {percents(accuracy)}, by {accuracy.n:,} {plural(accuracy.n, 'label')}: "
        f"{points((accuracy.high - accuracy.low) / 2)}, where a plain sample of that size would give "
        f"{points(plain_half_width)}"
    )
