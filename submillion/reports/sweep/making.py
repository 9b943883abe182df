"""How a study came about, a section each: its settings, short and full trials, time, every trial, what repeats it."""

from __future__ import annotations

from submillion.reports.sections import Section, Table, as_sentences
from submillion.reports.sweep.figures import MAX_LINES, MAX_ROWS
from submillion.reports.sweep.reading import Summary, Trial, name_of
from submillion.reports.sweep.settings import axes_of, text
from submillion.reports.sweep.study import Entry, StudyReport
from submillion.text import duration, interval


def settings(report: StudyReport) -> Section | None:
    """Which values the tied settings share."""
    trials = [_trial(report, entry) for entry in report.entries]
    axes = axes_of(trials)
    if len(trials) < 2 or len(axes) < 2:
        return None
    tied = [_trial(report, entry) for entry in report.group]
    values = {axis.key: {text(trial.resolved.get(axis.key)) for trial in tied} for axis in axes}
    shared = [f"{key}={min(found)}" for key, found in values.items() if len(found) == 1]
    title = (
        f"All tied settings share {', '.join(shared)}" if shared else "No varied key has one value in all tied settings"
    )
    if len(tied) == 1:
        title = f"{len(axes)} keys were varied"
    limit = f"Of {len(trials)} settings the {MAX_LINES} best are drawn. " if len(trials) > MAX_LINES else ""
    rows = [
        (str(e.number), *(text(t.resolved.get(a.key)) for a in axes), f"{e.score.value:.4f}", _tie(e))
        for e, t in zip(report.entries, trials, strict=True)
    ]
    heads = ("trial", *(axis.key for axis in axes), "accuracy", "")
    return Section(
        anchor="settings",
        nav="Settings",
        title=title,
        figure="settings",
        reading=f"{limit}A line is a setting, from its values to its score at the right: the stronger, the higher. "
        "Values stand in order, evenly apart; lines of one value are drawn side by side.",
        tables=(Table("Values as resolved in the runs' configs", heads, rows, is_sortable=True),),
    )


def _trial(report: StudyReport, entry: Entry) -> Trial:
    return report.summary.trials[entry.number - 1]


def _tie(entry: Entry) -> str:
    return "tied" if entry.is_tied else "worse"


def stages(report: StudyReport) -> Section | None:
    """Whether short trials order settings as full ones do."""
    found = report.summary.rank_correlation
    if found is None:
        return None
    title = f"Short and full trials of {found.n} settings: no rank correlation can be computed"
    bounds = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
    if found.tau is not None and found.rho is not None:
        title = (
            f"Short and full trials of {found.n} settings: Kendall {found.tau:.2f}, Spearman {found.rho:.2f}{bounds}"
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
    """What the runs took."""
    trials = [trial for _, trial in report.timed]
    if not trials:
        return None
    training = sum(each.training for trial in trials for each in trial.seconds)
    evaluation = sum(each.evaluation for trial in trials for each in trial.seconds)
    n_runs = sum(len(trial.runs) for trial in trials)
    limit = f"Of {len(trials)} trials the {MAX_ROWS} longest are drawn. " if len(trials) > MAX_ROWS else ""
    rows = [("steps", duration(training)), ("evaluations", duration(evaluation)), ("runs", str(n_runs))]
    return Section(
        anchor="time",
        nav="Time",
        title=f"{n_runs} runs took {duration(training + evaluation)}, one after the other",
        figure="time",
        reading=f"{limit}Seconds of one run, of several seeds the mean. Reading, building and saving come on top; "
        "runs that shared the cores took longer than alone. A trial whose run an earlier one has took nothing.",
        tables=(Table("All runs together", ("", ""), rows),),
    )


def trials(report: StudyReport) -> Section:
    """Every trial, and why some have no result."""
    summary = report.summary
    over = [(n, t) for n, t in enumerate(summary.trials, start=1) if not t.fits]
    failed = [(n, t) for n, t in enumerate(summary.trials, start=1) if t.fits and t.why is not None]
    without = [f"{len(over)} over budget" if over else "", f"{len(failed)} failed or stopped" if failed else ""]
    title = ", ".join(filter(None, (f"{len(summary.trials)} trials", *without)))
    tables = [_trials_table(report)]
    if over:
        rows = [(f"{n}: {name_of(t)}", f"{t.total:,}", f"{t.total - (t.budget or 0):,}", _fits(t)) for n, t in over]
        heads = ("trial", "parameters", "over budget by", "what would fit")
        tables.append(Table("Over budget, and not started", heads, rows))
    if failed:
        rows = [(f"{n}: {name_of(t)}", str(t.why)) for n, t in failed]
        tables.append(Table("Without a result", ("trial", "why"), rows))
    return Section("trials", "Trials", title, tables=tuple(tables))


def _fits(trial: Trial) -> str:
    return "no rank" if trial.largest_rank is None else f"rank {trial.largest_rank}"


def _trials_table(report: StudyReport) -> Table:
    first = {trial.runs: number for number, trial in reversed(report.summary.done)}
    rows = []
    for number, trial in enumerate(report.summary.trials, start=1):
        same = first.get(trial.runs, number)
        mean = trial.validation_accuracy.mean
        rows.append(
            (
                f"{number}: {name_of(trial)}",
                trial.state if same == number else f"{trial.state}, as {same}",
                "–" if mean is None else f"{mean:.4f}" if len(trial.runs) > 1 else _own(trial),
                f"{trial.total:,}",
                f"{trial.training_s:,.1f}" if trial.seconds else "–",
                ", ".join(trial.runs) or "–",
            )
        )
    heads = ("trial", "state", "accuracy", "parameters", "seconds of steps", "runs")
    return Table(
        "Every trial; accuracies are after selection, of several seeds the mean", heads, rows, is_sortable=True
    )


def _own(trial: Trial) -> str:
    return interval(trial.validation_accuracy.by_seed[0])


def setup(report: StudyReport) -> Section:
    """What the study was asked."""
    summary = report.summary
    seeds = max((len(trial.seeds) for trial in summary.trials), default=1)
    budgets = sorted({trial.budget for trial in summary.trials if trial.budget is not None})
    rows = [
        ("kind", summary.kind),
        ("encoder", summary.encoder_name),
        ("budget", ", ".join(f"{each:,}" for each in budgets) or "none"),
        ("scale of rows and steps", f"{summary.scale:g}"),
        ("seeds a setting", str(seeds)),
        ("trials planned", str(summary.n_planned)),
    ]
    return Section(
        anchor="setup",
        nav="Setup",
        title="What the study asked",
        tables=(Table("The study", ("", ""), rows), _factors_table(summary)),
    )


def _factors_table(summary: Summary) -> Table:
    rows = [
        (each.factor, ", ".join(each.choices) if each.choices is not None else "a range" + ", logarithmic" * each.log)
        for each in summary.factors
    ]
    return Table("Factors, in their order", ("factor", "choices"), rows)
