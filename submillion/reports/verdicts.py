"""The words and the table of a comparison that the page of runs and the page of a study share.

What is concluded was decided in `comparison`.
"""

from __future__ import annotations

from submillion.judging.comparison import Verdict, p_value
from submillion.reports.sections import Table
from submillion.text import interval


def rows_sentences(verdict: Verdict, names: dict[str, str]) -> list[str]:
    """Return how many rows would separate the two best settings, by these names, in a sentence; none if they differ."""
    return [_rows_sentence(verdict, names)] if verdict.pairs and verdict.pairs[0].is_tied else []


def _rows_sentence(verdict: Verdict, names: dict[str, str]) -> str:
    first, second = (names[each.name] for each in verdict.settings[:2])
    difference = verdict.pairs[0].differences["accuracy"]
    value = difference.value
    if value == 0:
        return f"The two best, {first} and {second}, have the same accuracy: more rows have nothing to confirm."
    if verdict.n_rows_needed is None:
        return f"No number of rows would separate the two best, {first} and {second}: their seeds vary too much."
    if verdict.n_rows_needed <= verdict.n_rows:
        return (
            f"Tested alone, the two best, {first} and {second}, differ by {abs(value):.4f} (p "
            f"{p_value(difference.p)}): these {verdict.n_rows:,} rows are enough for two. Corrected for all pairs, "
            "they are tied: compare these two alone on new rows."
        )
    return (
        f"To separate the two best, {first} and {second}, about {verdict.n_rows_needed:,} {verdict.split} rows are "
        f"needed, if the true difference is the one seen ({abs(value):.4f}; power 0.8, level 0.05, these two alone); "
        f"there are {verdict.n_rows:,}."
    )


def pairs_table(verdict: Verdict, names: dict[str, str]) -> Table:
    """Return each other setting against the best, every metric."""
    rows = [
        (
            names[each.setting],
            metric.replace("_", " "),
            interval(found, sign="+"),
            p_value(found.p),
            p_value(found.p_holm),
            ("tie" if each.is_tied else "worse") if metric == "accuracy" else "",
        )
        for each in verdict.pairs
        for metric, found in each.differences.items()
    ]
    best = names[verdict.settings[0].name]
    heads = ("", "metric", "difference", "p", "p (Holm)", "accuracy says")
    return Table(f"Each of the others minus {best}; Holm's correction is over all pairs", heads, rows)
