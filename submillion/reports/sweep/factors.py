"""What a study says of its factors and of the claims about them, a section each."""

from __future__ import annotations

from collections import Counter

from submillion.reports.forests import READING
from submillion.reports.sections import Quote, Section, Table, interval
from submillion.reports.sweep.claims import Judged
from submillion.reports.sweep.figures import said
from submillion.reports.sweep.panels import Choice, Panel
from submillion.reports.sweep.study import Entry, StudyReport
from submillion.reports.verdicts import difference, interval_or_dash, p_value


def tested_cells(of: Entry | Choice) -> tuple[str, str, str] | None:
    """Return the difference to the best, p and Holm's p as cells; None of the best itself."""
    found = of.difference
    return None if found is None else (difference(found), p_value(found.p), p_value(found.p_holm))


def factors(report: StudyReport) -> Section | None:
    """What is known of each factor."""
    if not any(panel.scored for panel in report.panels):
        return None
    is_ordered = report.summary.kind == "one-factor"
    sentences = (
        "Each factor's trials were compared among themselves, with the choices that were fixed before."
        if is_ordered
        else "A choice stands for its best trial; all trials were compared together.",
        *(_fixed_in_a_tie(panel) for panel in report.panels if is_ordered and panel.found == "tie" and panel.fixed),
    )
    return Section(
        anchor="factors",
        nav="Factors",
        title=_factors_title(report.panels),
        sentences=sentences,
        figure="factors",
        reading=f"{READING} The dashed line is the best of the panel, a ring the choice that was taken.",
        tables=tuple(_panel_table(panel) for panel in report.panels),
    )


def _factors_title(panels: list[Panel]) -> str:
    compared = [panel for panel in panels if panel.found != "not compared"]
    if not compared:
        return "No factor has two choices that were compared"
    decided = [panel.factor for panel in compared if panel.found == "told apart"]
    if not decided:
        return f"No winner was told from all others in any of {len(compared)} factors"
    return f"{len(decided)} of {len(compared)} factors have a winner that is told from all others: {', '.join(decided)}"


def _fixed_in_a_tie(panel: Panel) -> str:
    assert panel.fixed is not None
    others = ", ".join(choice.label for choice in panel.tied if choice is not panel.fixed)
    return f"{panel.factor}: {panel.fixed.label} was fixed inside a tie; these rows cannot tell it from {others}."


def _panel_table(panel: Panel) -> Table:
    rows = []
    for choice in panel.choices:
        marks = [] if panel.found == "not compared" or choice.score is None else ["tied" if choice.is_tied else "worse"]
        marks += ["taken"] if choice.is_fixed else []
        tested = tested_cells(choice) or ("best" if choice is panel.best else choice.why or "–", "", "")
        params = "–" if choice.n_params is None else f"{choice.n_params:,}"
        number = "–" if choice.trial is None else str(choice.trial)
        accuracy = interval_or_dash(choice.score)
        rows.append((choice.label, number, accuracy, tested[0], tested[2], ", ".join(marks), params))
    given = ", ".join(f"{name}={choice}" for name, choice in panel.given.items())
    caption = f"{panel.factor}: {said(panel)}" + (f"; with {given}" if given else "")
    heads = ("", "trial", "accuracy", "minus the best", "p (Holm)", "", "parameters")
    return Table(caption, heads, rows)


def claims(report: StudyReport) -> Section | None:
    """What was claimed beside what was measured."""
    if not report.claims:
        return None
    n = Counter(each.judgement for each in report.claims)
    order = ("holds", "told apart against it", "a tie", "not tested here")
    counts = ", ".join(f"{n[name]} {name}" for name in order if n[name])
    scale = "" if report.summary.scale == 1 else f", at scale {report.summary.scale:g}"
    return Section(
        anchor="claims",
        nav="Claims",
        title=f"Of {len(report.claims)} claims: {counts}",
        sentences=(
            f"Measured with {report.summary.encoder}{scale}. A claim holds where every other choice is told from the "
            "claimed winner on these rows; a tie contradicts nothing and confirms nothing.",
        ),
        tables=(_claims_table(report), *_claimed_table(report)),
        quotes=tuple(Quote(each.claim.says, each.claim.factor) for each in report.claims if each.claim.says),
    )


def _claims_table(report: StudyReport) -> Table:
    rows = []
    for each in report.claims:
        measured = "–" if each.measured is None else interval_or_dash(each.measured.score)
        rival = "–" if each.rival is None else f"{each.rival.label}: {interval_or_dash(each.rival.score)}"
        rows.append((each.claim.factor, each.claim.winner, measured, rival, _p_of(each), _judgement(each)))
    heads = ("factor", "claimed winner", "measured", "against", "p (Holm)", "")
    return Table("Claims, and what these rows say of them", heads, rows)


def _judgement(each: Judged) -> str:
    return each.judgement if each.why is None else f"{each.judgement}: {each.why}"


def _p_of(each: Judged) -> str:
    """The test between the two: that of whichever is not the best."""
    if each.measured is None or each.rival is None:
        return "–"
    tested = each.measured.difference or each.rival.difference
    return "–" if tested is None else p_value(tested.p_holm)


def _claimed_table(report: StudyReport) -> tuple[Table, ...]:
    """The claimed scores with the intervals that their own rows allow."""
    rows = []
    for each in report.claims:
        panel = next((panel for panel in report.panels if panel.factor == each.claim.factor), None)
        here = {} if panel is None else {choice.label: choice.score for choice in panel.choices}
        for label, score in each.claimed.items():
            claimed = interval(score) if score.n else f"{score.value:.4f}"
            n_rows = f"{score.n:,}" if score.n else "not known"
            half = f"± {50 * (score.high - score.low):.1f} points" if score.n else "–"
            rows.append((f"{each.claim.factor}={label}", claimed, n_rows, half, interval_or_dash(here.get(label))))
    heads = ("", "claimed", "rows", "95 % interval", "measured here")
    return (Table("Claimed scores, with Wilson's interval on the claim's own rows", heads, rows),) if rows else ()
