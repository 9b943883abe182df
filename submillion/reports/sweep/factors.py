"""What a study says about its factors and the claims about them, a section each."""

from __future__ import annotations

from collections import Counter

from submillion.judging.comparison import p_value
from submillion.judging.metrics import NAMES, Score
from submillion.reports.forests import READING
from submillion.reports.sections import Quote, Section, Table
from submillion.reports.sweep.figures import said
from submillion.reports.sweep.study import Choice, Compared, Judged, Panel, StudyReport
from submillion.runs.study import StudyRecord
from submillion.text import interval


def tested_cells(entry: Compared | Choice) -> tuple[str, str]:
    """Return the difference to the best, and Holm's p of the score that decides, as cells; dashes for the best."""
    if entry.difference is None or entry.decided is None:
        return "–", "–"
    return interval(entry.difference, sign="+"), p_value(entry.decided.p_holm)


def tested_heads(summary: StudyRecord) -> tuple[str, str]:
    """Return the heads of the columns of these cells."""
    is_metric = summary.deciding == summary.metric
    return "minus the best", "p (Holm)" if is_metric else f"p (Holm), {NAMES[summary.deciding]}"


def standing_of(entry: Compared | Choice) -> str:
    """Return what is said about a setting that is not the best. One that got fewer seeds than those that tied was not
    tested as they were: it is not pursued, rather than worse."""
    if entry.is_tied:
        return "tied"
    return "worse" if entry.is_pursued else "not pursued"


def factors(report: StudyReport) -> Section | None:
    """What is known about each factor."""
    is_compared = any(panel.found != "not compared" for panel in report.panels)
    if not any(panel.scored for panel in report.panels) or (report.summary.kind == "race" and not is_compared):
        return None  # what was dropped, and why, is with the trials
    is_ordered = report.summary.kind == "one-factor"
    sentences = (
        "Each factor's trials were compared with each other, given the choices fixed before."
        if is_ordered
        else "A choice stands for its best trial; all trials were compared together.",
        *(_fixed_in_a_tie(panel) for panel in report.panels if is_ordered and panel.found == "tie" and panel.fixed),
    )
    return Section(
        anchor="factors",
        nav="Factors",
        title=_factors_title(report.panels) + _of_runs(report.panels),
        sentences=sentences,
        figure="factors",
        reading=f"{READING} The dashed line is the best of the panel, a ring the choice that was taken.",
        tables=(_choices_table(report.panels, report.summary),),
    )


def _factors_title(panels: list[Panel]) -> str:
    compared = [panel for panel in panels if panel.found != "not compared"]
    if not compared:
        return "No factor has two choices that were compared"
    if len(compared) == 1:
        return f"{compared[0].factor}: {said(compared[0])}"
    decided = [panel.factor for panel in compared if panel.found == "told apart"]
    if not decided:
        return f"No winner was told from all others in any of {len(compared)} factors"
    return f"{len(decided)} of {len(compared)} factors have a winner that is told from all others: {', '.join(decided)}"


def _of_runs(panels: list[Panel]) -> str:
    """What is added to a title if a panel's tests are about runs with one seed."""
    is_of_runs = any(panel.about == "runs" for panel in panels if panel.found != "not compared")
    return ": of these runs, with one seed" if is_of_runs else ""


def _fixed_in_a_tie(panel: Panel) -> str:
    assert panel.fixed is not None
    others = ", ".join(choice.label for choice in panel.tied if choice is not panel.fixed)
    return f"{panel.factor}: {panel.fixed.label} was fixed inside a tie; these rows cannot tell it from {others}."


def _choices_table(panels: list[Panel], summary: StudyRecord) -> Table:
    rows = [
        (
            f"{panel.factor}={choice.label}",
            "–" if choice.trial is None else str(choice.trial),
            interval(choice.score),
            *tested_cells(choice),
            ", ".join(filter(None, (_standing(panel, choice), "taken" if choice.is_fixed else ""))),
        )
        for panel in panels
        for choice in panel.choices
    ]
    return Table("Each choice", ("", "trial", summary.metric_name, *tested_heads(summary), ""), rows)


def _standing(panel: Panel, choice: Choice) -> str:
    if choice.score is None or panel.found == "not compared":
        return choice.why or ""
    return "best" if choice is panel.best else standing_of(choice)


def claims(report: StudyReport) -> Section | None:
    """What was claimed next to what was measured."""
    if not report.claims:
        return None
    n = Counter(each.judgement for each in report.claims)
    words = {
        "holds": ("holds", "hold"),
        "told apart against it": ("is told apart against", "are told apart against"),
        "a tie": ("is a tie", "are ties"),
        "not tested here": ("is not tested here", "are not tested here"),
    }
    counts = ", ".join(f"{n[name]} {verbs[n[name] > 1]}" for name, verbs in words.items() if n[name])
    alone = _of_runs([panel for panel in report.panels if panel.factor in {e.claim.factor for e in report.claims}])
    scale = "" if report.summary.scale == 1 else f", at scale {report.summary.scale:g}"
    return Section(
        anchor="claims",
        nav="Claims",
        title=(f"Of {len(report.claims)} claims {counts}" if len(report.claims) > 1 else f"The claim {counts[2:]}")
        + alone,
        sentences=(
            f"Measured with {report.summary.encoder_name}{scale}. A claim holds where every other choice is told from "
            "the claimed winner on these rows; a tie contradicts nothing and confirms nothing.",
            *filter(None, map(_own_rows, report.claims)),
        ),
        tables=(_claims_table(report), *_claimed_table(report)),
        quotes=tuple(
            Quote(each.claim.says, f"said of {each.claim.factor}") for each in report.claims if each.claim.says
        ),
    )


def _claims_table(report: StudyReport) -> Table:
    rows = []
    for each in report.claims:
        measured = "–" if each.measured is None else interval(each.measured.score)
        rival = "–" if each.rival is None else f"{each.rival.label}: {interval(each.rival.score)}"
        rows.append((f"{each.claim.factor}={each.claim.winner}", _judgement(each), measured, rival, _p_of(each)))
    heads = ("claimed winner", "", "measured", "against", "p (Holm)")
    return Table("Claims, and what these rows say of them", heads, rows)


def _own_rows(each: Judged) -> str:
    """What the claim's own rows say about its winner and the next best."""
    first = each.claimed.get(each.claim.winner)
    others = {label: score for label, score in each.claimed.items() if label != each.claim.winner}
    if first is None or not first.n or not others:
        return ""
    name = max(others, key=lambda label: others[label].value)
    points = 100 * (first.value - others[name].value)
    above = "equal to" if points == 0 else f"{points:+.1f} points from"
    return (
        f"{each.claim.factor}: {each.claim.winner} was claimed {above} {name}, on {first.n:,} rows, where the 95 % "
        f"interval is ± {_half_points(first)} points."
    )


def _half_points(score: Score) -> str:
    return f"{50 * (score.high - score.low):.1f}"


def _judgement(each: Judged) -> str:
    return each.judgement if each.why is None else f"{each.judgement}: {each.why}"


def _p_of(each: Judged) -> str:
    """The test between the two: that of whichever is not the best."""
    if each.measured is None or each.rival is None:
        return "–"
    tested = each.measured.decided or each.rival.decided
    return "–" if tested is None else p_value(tested.p_holm)


def _claimed_table(report: StudyReport) -> tuple[Table, ...]:
    """The claimed scores with the intervals that their own rows allow."""
    rows = []
    for each in report.claims:
        panel = next((panel for panel in report.panels if panel.factor == each.claim.factor), None)
        here = {} if panel is None else {choice.label: choice.score for choice in panel.choices}
        for label, score in each.claimed.items():
            claimed = interval(score) if score.n else f"{score.value:.4f}"
            n_rows = "not known" if each.claim.rows is None else f"{each.claim.rows:,}"
            half = f"± {_half_points(score)} points" if score.n else "–"
            rows.append((f"{each.claim.factor}={label}", claimed, n_rows, half, interval(here.get(label))))
    heads = ("", "claimed", "rows", "95 % interval", "measured here")
    title = f"Claimed {report.summary.metric_name}"
    if report.summary.metric == "accuracy":
        title = "Claimed accuracies, with Wilson's interval on the claim's own rows"
    return (Table(title, heads, rows),) if rows else ()
