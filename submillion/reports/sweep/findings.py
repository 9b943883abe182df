"""What a study found as a whole, a section each: the answer, who is tied, what the budget buys."""

from __future__ import annotations

from collections import Counter

from submillion.judging.comparison import p_value
from submillion.reports.forests import READING
from submillion.reports.sections import Section, Table, as_sentences
from submillion.reports.sweep.factors import tested_cells
from submillion.reports.sweep.figures import MAX_ROWS
from submillion.reports.sweep.reading import Summary
from submillion.reports.sweep.study import Entry, StudyReport
from submillion.reports.verdicts import rows_sentences
from submillion.text import duration, interval

_N_NAMED = 12  # trials that a sentence names


def answer(report: StudyReport) -> Section:
    """What to take, and whether it was told from the others."""
    summary = report.summary
    if not summary.finished:
        return _unfinished(report)
    return Section(
        anchor="answer",
        nav="Answer",
        title=_title(report),
        sentences=(*_taken(report), *_tested(summary), _counts(summary), *_notes(summary)),
        tables=(_answer_table(report),),
    )


def _unfinished(report: StudyReport) -> Section:
    summary = report.summary
    n_planned = max(summary.n_planned, len(summary.trials))
    ended = [trial for trial in summary.trials if trial.is_done or trial.why is not None]
    title = f"Unfinished: {len(ended)} of {n_planned} trials ended"
    sentences = [_counts(summary)]
    if not summary.done and len(ended) == len(summary.trials) > 0:
        title = "No trial could be trained"
        sentences.append("What fits the budget, and why others failed, stands with the trials.")
    else:
        sentences.append(
            "Nothing is recommended yet, and trials are compared once all of their stage have ended. The command "
            "that began the sweep goes on where it stopped."
        )
    best = max(summary.done, key=lambda each: each[1].validation_accuracy.mean or 0.0, default=None)
    if best is not None:
        mean = best[1].validation_accuracy.mean or 0.0
        sentences.append(f"The highest score so far is {mean:.4f}, of trial {best[0]}, after selection.")
    return Section("answer", "Answer", title, (*sentences, *_notes(summary)))


def _title(report: StudyReport) -> str:
    entries, group = report.entries, report.group
    if len(entries) == 1:
        return f"One setting finished: accuracy {entries[0].score.value:.4f}, after selection"
    rows = f"{entries[0].score.n:,} validation rows"
    if len(group) == 1:
        others = "the other one" if len(entries) == 2 else f"each of the {len(entries) - 1} others"
        return f"{entries[0].name} is better than {others} on {rows}"
    if len(group) == len(entries):
        return f"Nothing was told apart: all {len(entries)} settings tie on {rows}"
    return f"{len(group)} of {len(entries)} settings tie with the best on {rows}"


def _taken(report: StudyReport) -> list[str]:
    """The recommended trial, the best one where that is another, and the rows that the two best would take."""
    found, best, verdict = report.recommended, report.entries[0], report.summary.comparison
    if found is None:
        return []
    why = (
        ""
        if len(report.entries) == 1
        else ", the only one left"
        if len(report.group) == 1
        else ", the cheapest of the tie group"
    )
    cost = f"{found.n_params:,} trainable parameters, {duration(found.training_s)} of training"
    lines = [
        f"Take trial {found.number} ({found.name}){why}: accuracy {interval(found.score)} on {found.score.n:,} "
        f"validation rows, after selection; {cost}. Its run is {report.summary.recommended_run}."
    ]
    if found is not best:
        lines.append(f"The highest score is that of trial {best.number} ({best.name}): {interval(best.score)}.")
    lines += _doubts(report, found)
    if verdict is not None:
        names = {each.setting: f"trial {report.summary.first_of(each)[0]}" for each in verdict.settings}
        lines += rows_sentences(verdict, names)
    return lines


def _doubts(report: StudyReport, found: Entry) -> list[str]:
    """Whether the recommended trial was told from the best of its own factor, where fewer pairs are corrected for."""
    of_it = [(panel, choice) for panel in report.panels for choice in panel.choices if choice.runs == found.runs]
    return [
        f"Among the choices of {panel.factor} alone it was told from {panel.best.label} "
        f"(p {p_value(choice.difference.p_holm)}): there fewer pairs are corrected for than among all trials."
        for panel, choice in of_it
        if not choice.is_tied and choice.difference is not None and panel.best is not None
    ]


def _tested(summary: Summary) -> list[str]:
    score = (summary.scores or {}).get("test")
    if score is None:
        return ["The test split was not opened: the data has none."]
    times = "once" if summary.n_test_reads == 1 else f"{summary.n_test_reads} times"
    each = score["accuracy"]
    return [
        f"On test the recommended run has accuracy {interval(each)} on {each.n:,} rows. These rows were opened {times} "
        "so far; of this study's trials only this one opened them."
    ]


def _counts(summary: Summary) -> str:
    states = Counter(trial.state for trial in summary.trials)
    asked = f"{len(summary.trials)} trials" if len(summary.trials) != 1 else "1 trial"
    runs = {run for trial in summary.trials for run in trial.runs}
    ended = ", ".join(f"{n} {state}" for state, n in states.items()) or "none begun"
    same = f"; {len(runs)} different runs" if runs else ""
    return f"{asked}: {ended}{same}."


def _notes(summary: Summary) -> tuple[str, ...]:
    notes = () if summary.comparison is None else summary.comparison.notes
    return as_sentences(notes)


def _answer_table(report: StudyReport) -> Table:
    rows = []
    for role, entry in (("recommended", report.recommended), *zip(("best", "second"), report.entries, strict=False)):
        if entry is not None:
            rows.append((f"{entry.number}: {entry.name}", role, interval(entry.score), f"{entry.n_params:,}"))
    return Table("Validation accuracy, after selection", ("trial", "", "accuracy", "parameters"), rows)


def ties(report: StudyReport) -> Section | None:
    """All settings that were compared, the tie group first to be seen."""
    entries, group = report.entries, report.group
    if len(entries) < 2:
        return None
    names = ", ".join(str(entry.number) for entry in group[:_N_NAMED])
    more = f" and {len(group) - _N_NAMED} more" if len(group) > _N_NAMED else ""
    title = f"Tied with the best: trials {names}{more}"
    if len(group) == 1:
        title = f"Trial {names} stands alone"
    limit = f"Of {len(entries)} settings the {MAX_ROWS} best are drawn. " if len(entries) > MAX_ROWS else ""
    return Section(
        anchor="ties",
        nav="Ties",
        title=title,
        figure="ties",
        reading=f"{limit}{READING} A number names a trial, the first that asked for the setting. An arrow is a "
        "score left of the axis.",
        tables=(_ties_table(report),),
    )


def _ties_table(report: StudyReport) -> Table:
    rows = [
        (
            f"{entry.number}: {entry.name}",
            interval(entry.score),
            *tested_cells(entry.difference),
            "best" if entry.difference is None else "tied" if entry.is_tied else "worse",
            f"{entry.n_params:,}",
        )
        for entry in report.entries
    ]
    heads = ("trial", "accuracy", "minus the best", "p (Holm)", "", "parameters")
    return Table("Each setting against the best; Holm's correction is over all pairs", heads, rows, is_sortable=True)


def budget(report: StudyReport) -> Section | None:
    """What more trainable parameters buy."""
    if len({entry.n_params for entry in report.entries}) < 2:
        return None
    cheapest, best = min(report.group, key=lambda each: (each.n_params, each.training_s)), report.entries[0]
    title = f"{cheapest.n_params:,} parameters tie with the best score, which takes {best.n_params:,}"
    if cheapest.n_params == best.n_params:
        title = f"No setting with fewer parameters ties with the best, which trains {best.n_params:,}"
    rows = [
        (f"{e.n_params:,}", f"{e.number}: {e.name}", interval(e.score), "tied" if e.is_tied else "worse")
        for e in report.frontier
    ]
    return Section(
        anchor="budget",
        nav="Budget",
        title=title,
        figure="frontier",
        reading="A point is a setting, its line the 95 % interval. The steps are the highest score that so many "
        "parameters, or fewer, reached here: each is a highest of several, and so too good. Scores far below the best "
        "are left out.",
        tables=(Table("The steps", ("parameters", "trial", "accuracy", ""), rows),),
    )
