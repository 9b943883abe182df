"""The words and the tables of a comparison that the page of runs and the page of a study share.

Conclusions are drawn in `comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from submillion.judging.comparison import Needed, RowsForPoints, Verdict, p_value
from submillion.judging.comparison.rows import (
    DISCORDANT_FOR_EACH_ERROR,
    FEWER_AT_LEAST,
    FEWER_AT_MOST,
    FEWER_BY_LOG_LOSS,
)
from submillion.judging.metrics import LOSSES, NAMES
from submillion.reports.sections import Section, Table
from submillion.text import interval


def of_runs(verdict: Verdict) -> str:
    """Return what is added to a title whose tests are about runs, since a setting has one seed."""
    n = sum(len(each.runs) for each in verdict.settings)
    return f" ({'these two runs' if n == 2 else 'these runs'}, not their settings)"


def by_what(verdict: Verdict) -> str:
    """Return by which tests settings are told apart, if another score decides than the one that is reported."""
    if verdict.decides is None:
        return ""
    told = [pair.told(verdict.metric) for pair in verdict.pairs if not pair.is_tied]
    decider, score = NAMES[verdict.deciding], NAMES[verdict.metric]
    if told and all(each == "worse" for each in told):
        return f", by {decider} and by {score}"
    return f", by {decider} alone" if told and not any(told) else f", by {decider}"


def taken_because(verdict: Verdict) -> str:
    """Return why the recommended setting is taken, and what that may cost."""
    chosen = next(each for each in verdict.settings if each.name == verdict.recommended)
    is_best = verdict.against(chosen) is None
    lost = (
        "" if is_best else f", at most {amount(verdict.metric, verdict.most_lost(chosen))} worse than the best (95 %)"
    )
    if verdict.margin is not None:
        within = f"at most {amount(verdict.metric, verdict.margin)} worse than the best, as the margin allows"
        return f"the best: nothing cheaper is {within}" if is_best else f"the cheapest that is {within}{lost}"
    if len(verdict.group) == 1:
        return "the only one left"
    return "the best and the cheapest of the tied" if is_best else f"the cheapest of the tied{lost}"


def amount(metric: str, value: float) -> str:
    """Return the size of a difference of a score: in points, for a log loss in nats.

    >>> amount("accuracy", 0.0125), amount("log_loss", 0.0125)
    ('1.25 points', '0.0125 nats')
    """
    return f"{value:.4f} nats" if metric in LOSSES else f"{100 * value:.2f} points"


def corrected_sentences(verdict: Verdict, names: Mapping[str, str]) -> list[str]:
    """Return the best score without the luck of its choice, in a sentence; empty if that is not known."""
    if verdict.corrected is None:
        return []
    best = verdict.settings[0]
    by = "" if verdict.decides is None else f" by {NAMES[verdict.decides]}"
    chosen = "its checkpoint" if len(verdict.settings) == 1 else "the setting and its checkpoint"
    return [
        f"The {NAMES[verdict.metric]} of {names[best.name]}, the best{by}, is {best.scores[verdict.metric].value:.4f} "
        f"after selection; corrected for the choice of {chosen} on these rows it is {interval(verdict.corrected)} "
        "(bootstrap of the choice: Tsamardinos et al. 2018)."
    ]


def best_sentences(verdict: Verdict, names: Mapping[str, str]) -> list[str]:
    """Return among which settings the best one is, in a sentence; empty if the tie group says as much."""
    if not verdict.may_be_best or len(verdict.may_be_best) >= len(verdict.group):
        return []
    *others, last = (names[name] for name in verdict.may_be_best)
    which = f"{', '.join(others)} or {last}" if others else last
    return [
        f"With 95 % confidence the best by {NAMES[verdict.deciding]} is {which} (Hsu 1984: no correction for all "
        "pairs is needed). The rest of the tie group cannot be told from it in tests of pairs."
    ]


def rows_sentences(verdict: Verdict, names: Mapping[str, str]) -> list[str]:
    """Return how many rows would separate the two best settings, by these names, in a sentence; empty if they differ.
    `rows_tables` has the numbers."""
    if not verdict.rows_needed:
        return []
    first, second = (names[each.name] for each in verdict.settings[:2])
    difference = verdict.pairs[0].differences[verdict.metric]
    seen = next((each.by_score for each in verdict.rows_needed if each.basis == "seen"), None)
    if seen is not None and seen.n_rows <= verdict.n_rows and seen.n_seeds == _n_seeds(verdict):
        return [
            f"Tested alone, the two best, {first} and {second}, differ by {abs(difference.value):.4f} (p "
            f"{p_value(difference.p)}): these {verdict.n_rows:,} rows are enough for two. Corrected for all pairs, "
            "they are tied: compare these two alone on new rows."
        ]
    largest = next(each for each in verdict.rows_needed if each.basis == "largest")
    least = min(filter(None, (largest.by_score, largest.by_log_loss)), key=lambda each: each.n_rows, default=None)
    score, size = NAMES[verdict.metric], amount(verdict.metric, largest.difference)
    if least is None and largest.difference > 0:
        return [
            f"No number of rows or seeds that was tried would separate the two best, {first} and {second}: up "
            f"to {size} may be true, but their seeds vary too much."
        ]
    if least is None:
        return [f"The two best, {first} and {second}, have the same {score}: more rows would have nothing to confirm."]
    seen_size = amount(verdict.metric, abs(difference.value))
    return [
        f"How many rows would separate the two best, {first} and {second}, depends on the true difference: {seen_size} "
        f"were seen, and up to {size} may be true, for which {_words(least, verdict)} would do. The table has more."
    ]


def rows_tables(verdict: Verdict, names: Mapping[str, str]) -> list[Table]:
    """Return the rows that separate the two best settings, a line for each difference that may be the true one; none if
    they are told apart."""
    if not verdict.rows_needed:
        return []
    notes = {"assumed": "", "seen": ", the one seen", "largest": ", the most that these rows allow"}
    rows = [
        (
            f"{amount(verdict.metric, each.difference)}{notes[each.basis]}",
            _words(each.by_score, verdict),
            _words(each.by_log_loss, verdict),
        )
        for each in verdict.rows_needed
    ]
    first, second = (names[each.name] for each in verdict.settings[:2])
    heads = (f"true difference of {NAMES[verdict.metric]}", f"by {NAMES[verdict.metric]}", "by scaled log loss")
    title = (
        f"What would separate {first} and {second}, tested alone, with power 0.8 at level 0.05; there are "
        f"{verdict.n_rows:,} rows"
    )
    return [Table(title, heads, rows)]


def rows_for_points(differences: Sequence[RowsForPoints], accuracy: float) -> Section:
    """Return what `comparison.rows_for_points` says, as a section: the table and where its assumptions come from."""
    rows = [
        (
            f"{each.points:g}",
            f"{100 * each.discordance:.1f} %",
            rounded(each.by_accuracy),
            f"{rounded(each.by_log_loss)} [{rounded(each.at_least)}, {rounded(each.at_most)}]",
        )
        for each in differences
    ]
    heads = ("true difference, points", "decided differently", "rows by accuracy", "rows by scaled log loss")
    return Section(
        anchor="rows",
        nav="Rows",
        title=f"Validation rows that tell two runs of accuracy {accuracy:g} apart (chance 0.8, level 0.05)",
        sentences=(
            "Both are paired tests of two runs on the same rows. By accuracy: McNemar's, exact; rows by Connor 1987.",
            "Decided differently: rows that one run has right and the other wrong. Unless --discordance says otherwise "
            f"they are {DISCORDANT_FOR_EACH_ERROR:.2f} for each wrong row of a run, the median of 72 pairs of "
            "fine-tunings on five data sets, of settings far apart; near ones have a third of that.",
            f"By log loss, temperature scaled: {FEWER_BY_LOG_LOSS:.1f} times fewer rows [{FEWER_AT_LEAST:.1f} "
            f"to {FEWER_AT_MOST:.1f} in half of these pairs; below 1 more]. It says which run has the "
            "better probabilities; that is usually, not always, the more accurate one.",
            "Seeds move scores too, and no number of rows reduces that: plan three or more seeds per setting.",
        ),
        tables=(Table("", heads, rows),),
    )


def _n_seeds(verdict: Verdict) -> int:
    """The seeds of the two best settings that a test counts."""
    return 1 if verdict.pairs[0].about == "runs" else min(each.n_seeds for each in verdict.settings[:2])


def _words(needed: Needed | None, verdict: Verdict) -> str:
    if needed is None:
        return "–"
    more = needed.n_seeds > _n_seeds(verdict)
    return f"{rounded(needed.n_rows)} rows" + (f" with {needed.n_seeds} seeds" if more else "")


def rounded(n_rows: int) -> str:
    """Return a number of rows with no more digits than an approximation has.

    >>> rounded(18_835), rounded(640)
    ('18,800', '640')
    """
    return f"{int(float(f'{n_rows:.3g}')):,}"


def pairs_table(verdict: Verdict, names: dict[str, str]) -> Table:
    """Return each other setting against the best, every metric; the deciding and the reported one have a verdict."""
    rows = [
        (
            names[each.setting],
            NAMES[metric],
            interval(tested, sign="+"),
            p_value(tested.p),
            p_value(tested.p_holm),
            (each.told(metric) or "tie") if metric in (verdict.metric, verdict.deciding) else "",
            "decides" if metric == verdict.deciding else "",
        )
        for each in verdict.pairs
        for metric, tested in each.differences.items()
    ]
    best = names[verdict.settings[0].name]
    heads = ("", "metric", "difference", "p", "p (Holm)", "says", "")
    return Table(f"Each of the others minus {best}; Holm's correction is over all pairs", heads, rows)
