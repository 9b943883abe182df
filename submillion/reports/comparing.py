"""The page of a comparison of runs: one HTML file, its figure inside.

Conclusions are drawn in `comparison`; the page has the sections that `submillion compare` prints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from submillion import runs
from submillion.config import Metric
from submillion.errors import RunError
from submillion.judging.comparison import Verdict
from submillion.judging.comparison.conclusion import Split
from submillion.judging.metrics import LOSSES, NAMES
from submillion.reports import curves, forests, page
from submillion.reports.curves import Curve
from submillion.reports.drawing import Drawn, files, style
from submillion.reports.forests import Row
from submillion.reports.sections import Page, Section, Table, as_sentences
from submillion.reports.verdicts import (
    best_sentences,
    by_what,
    corrected_sentences,
    of_runs,
    pairs_table,
    rows_sentences,
    rows_tables,
    taken_because,
)
from submillion.runs import Output, Record, Which, compared
from submillion.text import duration, interval, plural

_MAX_ROWS = 40
_SECTION = re.compile(r"\b\w+\.(?=\w+=)")  # of a key; a figure has no room for it


def compare(
    run: Sequence[Which],
    split: Split = "validation",
    report: Path | None = None,
    out: Path | str = "runs",
    force: bool = False,
    margin: float | None = None,
    decide: Metric | None = None,
) -> Verdict:
    """Return the comparison of finished runs, by their folders, names or hashes in `out`, on one split of the same
    rows.

    Runs that differ only in train.seed make one setting. Reading the test split is noted in `test-reads.jsonl` next to
    each run. `report` is an HTML file for the comparison's page; `force`: it may replace a file that an earlier call
    did not write · margin: how much worse than the best the recommended setting may be, by `train.metric` (0.005 is
    half a point); None takes the cheapest of those that cannot be told from the best · decide: the score that decides,
    such as "accuracy"; "log-loss" is the scaled one, after temperature scaling; None takes what all runs' settings name
    (train.decide, train.metric), else log-loss. RunError names every run that is missing, unfinished, damaged,
    given twice, or of other rows, and a file that cannot be a page, before anything is opened.
    """
    output = None if report is None else Output(report, "compare", force)
    if output is not None:
        _refuse_no_page(output)
    verdict = compared.compare(run, split, out, margin, decide)
    if output is not None:
        write(verdict, output, records(run, out))
    return verdict


def _refuse_no_page(output: Output) -> None:
    file = output.path
    if file.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"--report {file}: the page is an HTML file; give a name such as comparison.html")
    if not file.absolute().parent.is_dir():
        raise RunError(f"--report {file}: there is no folder {file.absolute().parent}; make it, or give another one")
    output.check()


def records(which: Sequence[Which], out: Path | str = "runs") -> dict[str, list[Record]]:
    """Return the records of runs' trainings, by the runs' names."""
    return {run.name: run.records() for run in (runs.load(each, out) for each in which)}


def page_of(
    verdict: Verdict, records: Mapping[str, Sequence[Record]] | None = None, links: Mapping[str, str] | None = None
) -> Page:
    """Return the page of a comparison; records: its runs', by name, for their curves · links: as in `Page`."""
    names = _numbers(verdict)
    drawn = _curves(verdict, names, records or {})
    n_runs = sum(len(each.runs) for each in verdict.settings)
    return Page(
        name=f"{n_runs} runs on {verdict.n_rows:,} {verdict.split} rows",
        origin="submillion compare",
        sections=[*sections(verdict), *_curves_section(drawn, n_runs)],
        figures=_figures(verdict, names) | drawn,
        links=links or {},
    )


def write(verdict: Verdict, output: Output, records: Mapping[str, Sequence[Record]] | None = None) -> None:
    """Write a comparison's page, `page_of`; RunError if the file cannot be written. The same runs give the same
    bytes."""
    output.write(page.html(page_of(verdict, records)))


def sections(verdict: Verdict) -> list[Section]:
    """Return the sections of a comparison: the answer, the settings, the tests against the best."""
    names = _numbers(verdict)
    return [_answer(verdict, names), _settings(verdict, names), *_pairs(verdict, names)]


def _numbers(verdict: Verdict) -> dict[str, str]:
    """The settings' names on the page: numbers from 1, the best first."""
    return {each.name: str(number) for number, each in enumerate(verdict.settings, start=1)}


def _figures(verdict: Verdict, names: dict[str, str]) -> dict[str, Drawn]:
    shown = [e for i, e in enumerate(verdict.settings) if i < _MAX_ROWS or e.name == verdict.recommended]
    called = _short_names(verdict, names)
    key = verdict.metric
    rows = [Row(called[e.name], e.scores[key], verdict.is_tied(e), e.name == verdict.recommended) for e in shown]
    with style():
        axis = f"{NAMES[verdict.metric]} on {verdict.split}"
        return {"forest": files("forest", forests.forest(rows, axis, "recommended", verdict.metric in LOSSES), False)}


def _short_names(verdict: Verdict, names: dict[str, str]) -> dict[str, str]:
    """The settings' names in figures: the number, and what not all of them share."""
    parts = forests.without_shared([_SECTION.sub("", each.name) for each in verdict.settings])
    return {e.name: f"{names[e.name]}  {part}" for e, part in zip(verdict.settings, parts, strict=True)}


def _curves(verdict: Verdict, names: dict[str, str], records: Mapping[str, Sequence[Record]]) -> dict[str, Drawn]:
    called = _short_names(verdict, names)
    return curves.draw(
        [
            Curve(called[each.name], tuple(records[run]))
            for each in verdict.settings
            for run in each.runs
            if run in records
        ],
        with_png=False,
    )


def _curves_section(drawn: Mapping[str, Drawn], n_runs: int) -> list[Section]:
    if not drawn:
        return []
    limit = f"Of {n_runs} runs, those of the best settings are drawn, {curves.MAX_CURVES} at most. "
    reading = "Lines of the validation score have their 95 % intervals: bands that overlap may be chance."
    return [
        Section(
            anchor="curves",
            nav="Curves",
            title=f"{n_runs} trainings, overlaid",
            figure="curves",
            reading=(limit if n_runs > curves.MAX_CURVES else "") + reading,
        )
    ]


def _answer(verdict: Verdict, names: dict[str, str]) -> Section:
    called = {name: f"setting {number}" for name, number in names.items()}
    sentences = [_taken(verdict, called)] if verdict.recommended is not None else []
    sentences += best_sentences(verdict, called)
    sentences += corrected_sentences(verdict, called)
    sentences += rows_sentences(verdict, called)
    sentences += as_sentences(verdict.notes)
    limit = f"Of {len(verdict.settings)} settings, the {_MAX_ROWS} best are drawn. "
    return Section(
        anchor="answer",
        nav="Answer",
        title=_title(verdict, names),
        sentences=tuple(sentences),
        figure="forest",
        reading=(limit if len(verdict.settings) > _MAX_ROWS else "") + forests.READING,
        tables=(_scores_table(verdict, names), *rows_tables(verdict, called)),
    )


def _title(verdict: Verdict, names: dict[str, str]) -> str:
    group, n = [names[name] for name in verdict.group], len(verdict.settings)
    rows, what = f"{verdict.n_rows:,} {verdict.split} rows", verdict.about
    decided, alone = by_what(verdict), "" if what == "settings" else of_runs(verdict)
    if n == 1:
        return "One setting: there is nothing to compare it with"
    if len(group) == 1:
        others = "setting 2" if n == 2 else f"each of the {n - 1} others"
        return f"Setting 1 is better than {others} on {rows}{decided}{alone}"
    if len(group) == n:
        return f"These {n} {what} cannot be told apart on {rows}{decided}"
    return (
        f"Settings {', '.join(group[:-1])} and {group[-1]} cannot be told apart on {rows}; "
        f"the others are worse{decided}{alone}"
    )


def _taken(verdict: Verdict, names: dict[str, str]) -> str:
    chosen = next(each for each in verdict.settings if each.name == verdict.recommended)
    cost = f"{chosen.n_params:,} trainable parameters, {duration(chosen.training_s)} of training"
    return f"Take {names[chosen.name]}, {taken_because(verdict)} ({cost}): {chosen.name}."


def _scores_table(verdict: Verdict, names: dict[str, str]) -> Table:
    selected = any(each.after_selection for each in verdict.settings)
    has_corrected = any(each.corrected is not None for each in verdict.settings)
    rows = [
        (
            names[each.name],
            *(interval(score) for score in each.scores.values()),
            *([interval(each.corrected)] * has_corrected),
            "best" if verdict.against(each) is None else "tied" if verdict.is_tied(each) else "worse",
            f"{each.n_params:,}",
            f"{each.training_s:,.1f}",
        )
        for each in verdict.settings
    ]
    corrected = ("corrected for its checkpoints",) * has_corrected
    heads = ("", *(NAMES[key] for key in verdict.settings[0].scores), *corrected, "", "parameters", "training s")
    after = ", after selection" if selected else ""
    by = "" if verdict.decides is None else f" by {NAMES[verdict.deciding]}"
    return Table(f"Scores on {verdict.split}{after};{by} the best first", heads, rows, is_sortable=True)


def _settings(verdict: Verdict, names: dict[str, str]) -> Section:
    n_runs = sum(len(each.runs) for each in verdict.settings)
    return Section(
        anchor="settings",
        nav="Settings",
        title=f"{len(verdict.settings)} {plural(len(verdict.settings), 'setting')}, {n_runs} {plural(n_runs, 'run')}",
        sentences=("Runs that differ in train.seed alone are one setting. What all settings share is omitted.",),
        tables=tuple(_differences(verdict, names)),
    )


def _differences(verdict: Verdict, names: dict[str, str]) -> list[Table]:
    """The settings with the keys that differ, a line each; keys that are too many for columns have a table of their
    own, a line each."""
    if verdict.keys:
        rows = [(names[each.name], ", ".join(each.runs)) for each in verdict.settings]
        keys = [(key, *(each.keys.get(key, "") for each in verdict.settings)) for key in verdict.keys]
        return [
            Table("Settings and their run folders", ("", "runs"), rows),
            Table("The keys that differ", ("key", *(names[each.name] for each in verdict.settings)), keys),
        ]
    differing = tuple(dict.fromkeys(key for each in verdict.settings for key in each.keys))
    lines = [
        (names[each.name], *(each.keys.get(key, "–") for key in differing), ", ".join(each.runs))
        for each in verdict.settings
    ]
    return [Table("What differs between the settings", ("", *differing, "runs"), lines, is_sortable=True)]


def _how_tested(verdict: Verdict) -> str:
    """Which test is behind the differences, in sentences."""
    seeds = "settings with several seeds too, with seeds as a second source of chance."
    if "accuracy" not in verdict.settings[0].scores and verdict.split == "validation":
        return (
            "Bootstrap over rows, where thresholds, chosen on other folds of these rows, are another "
            f"source of chance, by a jackknife over the folds; {seeds}"
        )
    exact = "Accuracies" if "accuracy" in verdict.settings[0].scores else "Subset accuracies"
    return (
        f"{exact} of two runs: McNemar's exact test, with Tango's interval of the difference. Other scores: bootstrap "
        f"over rows; {seeds}"
    )


def _scaled(verdict: Verdict) -> str:
    """What the scaled log loss is, if it decides."""
    if verdict.deciding != "scaled_log_loss":
        return ""
    return (
        " It is the log loss after each run's own temperature scaling, out of fold, of probabilities mixed with 1 % of "
        "chance, so that no single row dominates; it usually takes fewer rows than accuracy. "
        "`--decide accuracy` lets accuracy decide."
    )


def _pairs(verdict: Verdict, names: dict[str, str]) -> list[Section]:
    if not verdict.pairs:
        return []
    n_tied, n = len(verdict.group) - 1, len(verdict.pairs)
    return [
        Section(
            anchor="tests",
            nav="Tests",
            title=f"{n_tied} of {n} {plural(n, 'other')} {plural(n_tied, 'is', 'are')} tied with 1",
            sentences=(
                f"{_how_tested(verdict)} p (Holm) of {NAMES[verdict.deciding]} decides, at 0.05.{_scaled(verdict)}",
            ),
            tables=(pairs_table(verdict, names),),
        )
    ]
