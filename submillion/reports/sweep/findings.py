"""What a study found as a whole, and how it came about, a section each; its factors are in `factors`."""

from __future__ import annotations

from collections import Counter

from submillion.judging.comparison import Verdict, p_value
from submillion.judging.metrics import NAMES, leading
from submillion.reports.forests import READING
from submillion.reports.sections import Section, Table, as_sentences
from submillion.reports.sweep.factors import standing_of, tested_cells, tested_heads
from submillion.reports.sweep.figures import MAX_LINES, MAX_ROWS, axes_of
from submillion.reports.sweep.study import Compared, StudyReport
from submillion.reports.verdicts import (
    best_sentences,
    by_what,
    corrected_sentences,
    of_runs,
    rows_sentences,
    rows_tables,
    taken_because,
)
from submillion.runs.study import StudyRecord, TrialRecord, label
from submillion.text import duration, interval, plural

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
        tables=(_answer_table(report), *_rows_tables(summary)),
    )


def _unfinished(report: StudyReport) -> Section:
    summary = report.summary
    n_planned = max(summary.n_planned, len(summary.trials))
    ended = [trial for trial in summary.trials if trial.is_done or trial.why is not None]
    title = f"Unfinished: {len(ended)} of {n_planned} trials ended"
    sentences = [_counts(summary)]
    if not summary.done and len(ended) == len(summary.trials) > 0:
        title = "No trial could be trained"
        sentences.append("What fits the budget, and why others failed, is listed with the trials.")
    else:
        sentences.append(
            "Nothing is recommended yet: trials are compared once all of their stage have ended. "
            "Run the same command again to resume the sweep."
        )
    best = max(summary.done, key=lambda each: summary.height(each[1].validation_score.mean or 0.0), default=None)
    if best is not None:
        mean = best[1].validation_score.mean or 0.0
        sentences.append(f"The best score so far is {mean:.4f}, of trial {best[0]}, after selection.")
    return Section("answer", "Answer", title, (*sentences, *_notes(summary)))


def _title(report: StudyReport) -> str:
    entries, group = report.entries, report.group
    n_dropped = sum(trial.state == "ruled out" for trial in report.summary.trials)
    if len(entries) == 1 and n_dropped:
        others = "the other one was" if n_dropped == 1 else f"the {n_dropped} others were"
        return f"{entries[0].name} is the only one left: {others} dropped on the way"
    if len(entries) == 1:
        return f"One setting finished: {report.summary.metric_name} {entries[0].score.value:.4f}, after selection"
    verdict = report.summary.comparison
    alone = "" if verdict is None or verdict.about == "settings" else of_runs(verdict)
    decided = "" if verdict is None else by_what(verdict)
    rows = f"{entries[0].score.n:,} validation rows{decided}{alone}"
    if len(group) == 1 and not all(entry.is_pursued for entry in entries):
        return f"{entries[0].name} is the only one left on {rows}; others got fewer seeds"
    if len(group) == 1:
        others = "the other one" if len(entries) == 2 else f"each of the {len(entries) - 1} others"
        return f"{entries[0].name} is better than {others} on {rows}"
    if len(group) == len(entries):
        return f"No setting is better than another: all {len(entries)} tie on {rows}"
    return f"{len(group)} of {len(entries)} settings tie with the best on {rows}"


def _taken(report: StudyReport) -> list[str]:
    """The recommended trial, the best one if that is another, and the rows that would separate the two best."""
    chosen, best, verdict = report.recommended, report.entries[0], report.summary.comparison
    if chosen is None:
        return []
    why = "" if verdict is None else f", {taken_because(verdict)}"
    cost = f"{chosen.n_params:,} trainable parameters, {duration(chosen.training_s)} of training"
    lines = [
        f"Take trial {chosen.number} ({chosen.name}){why}: {report.summary.metric_name} {interval(chosen.score)} on "
        f"{chosen.score.n:,} validation rows, after selection; {cost}. Its run is {report.summary.recommended_run}."
    ]
    if chosen is not best:
        by = "" if verdict is None or verdict.decides is None else f", by {NAMES[verdict.deciding]},"
        lines.append(f"The best{by} is trial {best.number} ({best.name}): {interval(best.score)}.")
    lines += _doubts(report, chosen)
    if verdict is not None:
        names = _names(report.summary, verdict)
        lines += best_sentences(verdict, names)
        lines += [*corrected_sentences(verdict, names), *rows_sentences(verdict, names)]
    return lines


def _names(summary: StudyRecord, verdict: Verdict) -> dict[str, str]:
    return {each.name: f"trial {summary.first_of(each)[0]}" for each in verdict.settings}


def _rows_tables(summary: StudyRecord) -> list[Table]:
    verdict = summary.comparison
    return [] if verdict is None else rows_tables(verdict, _names(summary, verdict))


def _doubts(report: StudyReport, recommended: Compared) -> list[str]:
    """Whether the recommended trial was told from the best of its own factor, where fewer pairs are corrected for."""
    of_it = [(panel, choice) for panel in report.panels for choice in panel.choices if choice.runs == recommended.runs]
    return [
        f"Among the choices of {panel.factor} alone it was told from {panel.best.label} "
        f"(p {p_value(choice.decided.p_holm)}): the correction there is for fewer pairs than among all trials."
        for panel, choice in of_it
        if not choice.is_tied and choice.decided is not None and panel.best is not None
    ]


def _tested(summary: StudyRecord) -> list[str]:
    score = (summary.scores or {}).get("test")
    if score is None:
        return ["The test split was not opened: the data has none."]
    times = "once" if summary.n_test_reads == 1 else f"{summary.n_test_reads} times"
    key, each = leading(score)
    return [
        f"On test the recommended run has {NAMES[key]} {interval(each)} on {each.n:,} rows. These rows were opened "
        f"{times} so far; of this study's trials only this one opened them."
    ]


def _counts(summary: StudyRecord) -> str:
    states = Counter(trial.state for trial in summary.trials)
    count = f"{len(summary.trials)} trials" if len(summary.trials) != 1 else "1 trial"
    runs = {run for trial in summary.trials for run in trial.runs}
    ended = ", ".join(f"{n} {state}" for state, n in states.items()) or "none begun"
    same = f"; {len(runs)} different {plural(len(runs), 'run')}" if runs else ""
    return f"{count}: {ended}{same}."


def _notes(summary: StudyRecord) -> tuple[str, ...]:
    notes = () if summary.comparison is None else summary.comparison.notes
    return as_sentences(notes)


def _answer_table(report: StudyReport) -> Table:
    rows = []
    is_best = report.recommended is report.entries[0]
    first = ("recommended, the best" if is_best else "recommended", report.recommended)
    others = zip(("best", "second"), report.entries, strict=False)
    for role, entry in (first, *((role, each) for role, each in others if each is not report.recommended)):
        if entry is not None:
            rows.append((f"{entry.number}: {entry.name}", role, interval(entry.score), f"{entry.n_params:,}"))
    return Table(
        f"Validation {report.summary.metric_name}, after selection",
        ("trial", "", report.summary.metric_name, "parameters"),
        rows,
    )


def ties(report: StudyReport) -> Section | None:
    """All settings that were compared, the tie group first."""
    entries, group = report.entries, report.group
    if len(entries) < 2:
        return None
    names = ", ".join(str(entry.number) for entry in group[:_N_NAMED])
    more = f" and {len(group) - _N_NAMED} more" if len(group) > _N_NAMED else ""
    title = f"Tied with the best: trials {names}{more}"
    if len(group) == 1:
        title = f"Trial {names} stands alone"
    limit = f"Of {len(entries)} settings, the {MAX_ROWS} best are drawn. " if len(entries) > MAX_ROWS else ""
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
            *tested_cells(entry),
            "best" if entry.difference is None else standing_of(entry),
            f"{entry.n_params:,}",
        )
        for entry in report.entries
    ]
    heads = ("trial", report.summary.metric_name, *tested_heads(report.summary), "", "parameters")
    return Table("Each setting against the best; Holm's correction is over all pairs", heads, rows, is_sortable=True)


def budget(report: StudyReport) -> Section | None:
    """What more trainable parameters buy."""
    if len({entry.n_params for entry in report.entries}) < 2:
        return None
    cheapest, best = min(report.group, key=lambda each: each.n_params), report.entries[0]
    title = f"{cheapest.n_params:,} parameters tie with the best score, which takes {best.n_params:,}"
    if cheapest.n_params == best.n_params:
        title = f"No setting with fewer parameters ties with the best, which trains {best.n_params:,}"
    rows = [(f"{e.n_params:,}", f"{e.number}: {e.name}", interval(e.score), standing_of(e)) for e in report.frontier]
    return Section(
        anchor="budget",
        nav="Budget",
        title=title,
        figure="frontier",
        reading="A point is a setting, its line the 95 % interval. The steps are the highest score that this "
        "many parameters, or fewer, reached here: each is the highest of several, so too good. Scores far below "
        "the best are omitted.",
        tables=(Table("The steps", ("parameters", "trial", report.summary.metric_name, ""), rows),),
    )


def settings(report: StudyReport) -> Section | None:
    """Which values the tied settings share."""
    trials = [_trial(report, entry) for entry in report.entries]
    axes = axes_of(trials)
    if len(trials) < 2 or len(axes) < 2:
        return None
    tied = [_trial(report, entry) for entry in report.group]
    values = {axis.key: {label(trial.resolved.get(axis.key)) for trial in tied} for axis in axes}
    shared = [f"{key}={min(own)}" for key, own in values.items() if len(own) == 1]
    title = (
        f"All tied settings share {', '.join(shared)}" if shared else "No varied key has one value in all tied settings"
    )
    if len(tied) == 1:
        title = f"{len(axes)} keys were varied"
    limit = f"Of {len(trials)} settings, the {MAX_LINES} best are drawn. " if len(trials) > MAX_LINES else ""
    rows = [
        (str(e.number), *(label(t.resolved.get(a.key)) for a in axes), f"{e.score.value:.4f}", standing_of(e))
        for e, t in zip(report.entries, trials, strict=True)
    ]
    heads = ("trial", *(axis.key for axis in axes), report.summary.metric_name, "")
    return Section(
        anchor="settings",
        nav="Settings",
        title=title,
        figure="settings",
        reading=f"{limit}A line is a setting, from its values to its score at the right: the stronger, the higher. "
        "Values are in order, evenly apart; lines of one value are drawn side by side.",
        tables=(Table("Values as resolved in the runs' configs", heads, rows, is_sortable=True),),
    )


def _trial(report: StudyReport, entry: Compared) -> TrialRecord:
    return report.summary.trials[entry.number - 1]


def stages(report: StudyReport) -> Section | None:
    """Whether short trials order settings as full ones do."""
    correlation = report.summary.rank_correlation
    if correlation is None:
        return None
    title = f"Short and full trials of {correlation.n} settings: no rank correlation can be computed"
    if correlation.tau is not None and correlation.rho is not None:
        title = (
            f"Short and full trials of the {correlation.n} kept settings, by {NAMES[report.summary.deciding]}: Kendall "
            f"{correlation.tau:.2f}, Spearman {correlation.rho:.2f}"
        )
    rows = [(f"{pair.number}: {pair.name}", interval(pair.short), interval(pair.full)) for pair in report.pairs]
    return Section(
        anchor="stages",
        nav="Short and full",
        title=title,
        sentences=as_sentences(report.summary.notes),
        figure="stages",
        reading="A point is a setting that was kept, by the number of its full trial; lines are 95 % intervals.",
        tables=(Table("The kept settings", ("trial", "short", "full"), rows),) if rows else (),
    )


def cost(report: StudyReport) -> Section | None:
    """How long the runs took."""
    trials = [trial for _, trial in report.timed]
    if not trials:
        return None
    dropped = [trial for trial in report.summary.trials if trial.state == "ruled out"]
    every = [each for trial in (*trials, *dropped) for each in trial.seconds]
    training, evaluation = sum(each.training for each in every), sum(each.evaluation for each in every)
    n_runs = sum(len(trial.runs) for trial in trials)
    limit = f"Of {len(trials)} trials, the {MAX_ROWS} longest are drawn. " if len(trials) > MAX_ROWS else ""
    rows = [("steps", duration(training)), ("evaluations", duration(evaluation)), ("finished runs", str(n_runs))]
    if dropped:
        of_dropped = sum(each.training + each.evaluation for trial in dropped for each in trial.seconds)
        rows.append(("of it, trials that were ruled out", duration(of_dropped)))
    return Section(
        anchor="time",
        nav="Time",
        title=f"{len(every)} {plural(len(every), 'run')} took {duration(training + evaluation)}, one after the other",
        figure="time",
        reading=f"{limit}Seconds of one run, or the mean of several seeds. Reading, building and saving come on top; "
        "runs that shared the cores took longer than alone. A trial that shares an earlier trial's run took no time.",
        tables=(Table("All runs together", ("", ""), rows),),
    )


def trials(report: StudyReport) -> Section:
    """Every trial, and why some have no result."""
    summary = report.summary
    over = [(n, t) for n, t in enumerate(summary.trials, start=1) if not t.fits]
    failed = [(n, t) for n, t in enumerate(summary.trials, start=1) if t.fits and t.why is not None]
    failures = Counter(t.state for _, t in failed)
    without = [f"{len(over)} over budget" if over else "", *(f"{n} {state}" for state, n in failures.items())]
    title = ", ".join(filter(None, (f"{len(summary.trials)} trials", *without)))
    tables = [_trials_table(report)]
    if over:
        rows = [(f"{n}: {t.name}", f"{t.total:,}", f"{t.total - (t.budget or 0):,}", _fits(t)) for n, t in over]
        heads = ("trial", "parameters", "over budget by", "what would fit")
        tables.append(Table("Over budget, and not started", heads, rows))
    if failed:
        rows = [(f"{n}: {t.name}", str(t.why)) for n, t in failed]
        tables.append(Table("Without a result", ("trial", "why"), rows))
    return Section("trials", "Trials", title, tables=tuple(tables))


def _fits(trial: TrialRecord) -> str:
    return "no rank" if trial.largest_rank is None else f"rank {trial.largest_rank}"


def _trials_table(report: StudyReport) -> Table:
    first = {trial.runs: number for number, trial in reversed(report.summary.done)}
    rows = []
    for number, trial in enumerate(report.summary.trials, start=1):
        same = first.get(trial.runs, number)
        mean = trial.validation_score.mean
        rows.append(
            (
                f"{number}: {trial.name}",
                trial.state if same == number else f"{trial.state}, as {same}",
                "–" if mean is None else f"{mean:.4f}" if len(trial.runs) > 1 else _own(trial),
                f"{trial.total:,}",
                f"{trial.training_s:,.1f}" if trial.seconds else "–",
                ", ".join(trial.runs) or "–",
            )
        )
    heads = ("trial", "state", report.summary.metric_name, "parameters", "seconds of steps", "runs")
    return Table("Every trial; scores are after selection, for several seeds the mean", heads, rows, is_sortable=True)


def _own(trial: TrialRecord) -> str:
    return interval(trial.validation_score.by_seed[0])


def setup(report: StudyReport) -> Section:
    """What the study tried."""
    summary = report.summary
    seeds = max((len(trial.seeds) for trial in summary.trials), default=1)
    budgets = sorted({trial.budget for trial in summary.trials if trial.budget is not None})
    rows = [
        ("kind", summary.kind),
        ("encoder", summary.encoder_name),
        ("budget", ", ".join(f"{each:,}" for each in budgets) or "none"),
        ("scale of rows and steps", f"{summary.scale:g}"),
        ("seeds per setting", str(seeds)),
        ("trials planned", str(summary.n_planned)),
    ]
    return Section(
        anchor="setup",
        nav="Setup",
        title="What the study asked",
        tables=(Table("The study", ("", ""), rows), _factors_table(summary)),
    )


def _factors_table(summary: StudyRecord) -> Table:
    rows = [
        (each.factor, ", ".join(each.choices) if each.choices is not None else "a range" + ", logarithmic" * each.log)
        for each in summary.factors
    ]
    return Table("Factors, in their order", ("factor", "choices"), rows)
