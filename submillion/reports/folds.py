"""A training in folds → its pages, and the likely label errors among all of its rows; without torch.

Everything is made from the folder: pooled predictions, the folds' scores, and the texts if they can be read again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from submillion import config, data
from submillion.config import Config
from submillion.data import Example
from submillion.errors import ConfigError, SubmillionError
from submillion.judging import labels as judged
from submillion.judging import metrics
from submillion.judging.metrics import NAMES, ClassScores, Predictions, Score, leading
from submillion.reports import forests, page
from submillion.reports.drawing import Drawn, files, style
from submillion.reports.sections import Page, Quote, Section, Table, as_sentences, cut, quoted
from submillion.runs import Output, dumps, folds, write_atomically
from submillion.runs.folds import FoldsRecord
from submillion.text import interval, percent

_N_SHOWN = 20  # errors whose texts are on the page
_N_PAIRS = 10


@dataclass(frozen=True)
class LabelError:
    """A row whose label is likely wrong: the label, the likely class, and the probabilities of both, by a model that
    did not see the row. text: None if the rows cannot be read again."""

    id: str
    label: str
    likely: str
    prob_label: float
    prob_likely: float
    text: str | None


@dataclass(frozen=True)
class FoldsReport:
    """A training in folds as its page shows it. errors: the likeliest first · error_share: the estimated share of wrong
    labels · problem: why there are no texts."""

    name: str
    labels: tuple[str, ...]
    scores: dict[str, Score]
    folds: dict[str, dict[str, Score]]
    classes: list[ClassScores]
    confusion: list[list[int]]
    errors: list[LabelError]
    error_share: float
    problem: str | None
    notes: tuple[str, ...]
    config: str


def read(folder: Path) -> FoldsReport:
    """Return the report of a folder of folds; RunError if it is missing, unfinished or damaged."""
    record, (predictions, labels) = folds.read(folder), folds.pooled(folder)
    settings = config.validate(record.settings, str(folder / folds.FILE))
    texts, problem = _texts(settings, record)
    errors, counts = judged.label_errors(predictions), metrics.confusion(predictions, len(labels))
    return FoldsReport(
        name=folder.resolve().name,
        labels=labels,
        scores=record.scores,
        folds={fold.run: fold.scores for fold in record.folds},
        classes=metrics.class_scores(predictions),
        confusion=counts.tolist(),
        errors=[
            _error(predictions, labels, texts, int(row), int(i))
            for row, i in zip(errors.rows, errors.label_ids, strict=True)
        ],
        error_share=errors.share,
        problem=problem,
        notes=record.notes,
        config=config.to_yaml(settings),
    )


def write(folder: Path) -> list[Path]:
    """Write the pages of a folder of folds into it, in place of older ones; return their paths."""
    report = read(folder)
    links = {name: f"{name}/report.html" for name in report.folds if (folder / name / "report.html").exists()}
    origin = f"submillion report from the folder of folds {report.name}"
    html, markdown, drawn = page.save(Page(report.name, origin, sections(report), _figures(report), links), folder)
    write_atomically(folder / "report.json", dumps(asdict(report), indent=2) + "\n")
    return [html, markdown, folder / "report.json", drawn]


def sections(report: FoldsReport) -> list[Section]:
    """Return the sections in reading order."""
    return [answer(report), _classes(report), label_errors(report), _setup(report)]


def answer(report: FoldsReport) -> Section:
    """The pooled score, and how it varies over folds."""
    key, chosen = leading(report.scores)
    spread = [scores[key].value for scores in report.folds.values()]
    keys = tuple(dict.fromkeys((key, "accuracy", "macro_f1")))
    rows = [("all rows", f"{chosen.n:,}", *(interval(report.scores[each]) for each in keys))]
    rows += [(run, f"{s[key].n:,}", *(interval(s[each]) for each in keys)) for run, s in report.folds.items()]
    sd = f", standard deviation {np.std(spread, ddof=1):.4f}"
    what = f"{NAMES[key].capitalize()} {interval(chosen)} on {chosen.n:,} rows"
    return Section(
        anchor="answer",
        nav="Answer",
        title=f"{what}, each predicted by a run that had not seen it",
        sentences=(
            f"It is the 95 % interval of all {chosen.n:,} rows. The lowest of the {len(spread)} folds has "
            f"{min(spread):.4f}, the highest {max(spread):.4f}{sd}: folds share most of their training rows, so this "
            "does not say how a new sample would differ.",
            "Each fold's checkpoint was chosen on validation rows taken from the other folds, never on its own rows. A "
            "run on all rows has a few more to learn from. The settings' test rows are in no fold.",
        ),
        figure="folds",
        reading="One line per fold and one for all rows, with 95 % intervals.",
        tables=(Table("Scores with their 95 % intervals", ("", "rows", *(NAMES[each] for each in keys)), rows),),
    )


def _classes(report: FoldsReport) -> Section:
    worst = min(range(len(report.labels)), key=lambda number: report.classes[number].f1.value)
    rows = [
        (label, f"{each.n_true:,}", interval(each.precision), interval(each.recall), interval(each.f1))
        for label, each in zip(report.labels, report.classes, strict=True)
    ]
    counts = np.array(report.confusion)
    np.fill_diagonal(counts, 0)
    cells = [(int(counts[t, p]), report.labels[t], report.labels[p]) for t, p in zip(*np.nonzero(counts), strict=True)]
    pairs = [(t, p, f"{n:,}") for n, t, p in sorted(cells, key=lambda cell: (-cell[0], *cell[1:]))[:_N_PAIRS]]
    tables = [Table("Each class, by all rows", ("class", "rows", "precision", "recall", "F1"), rows)]
    if pairs:
        tables.append(Table("The commonest mistakes", ("true", "predicted", "rows"), pairs))
    title = f"{quoted(report.labels[worst])} has the lowest F1"
    if len({each.f1.value for each in report.classes}) == 1:
        title = f"All classes have an F1 of {report.classes[0].f1.value:.4f}"
    return Section("classes", "Classes", title, tables=tuple(tables))


def label_errors(report: FoldsReport, n_shown: int = _N_SHOWN) -> Section:
    """The rows whose label is likely wrong, the likeliest first."""
    n, n_rows = len(report.errors), report.scores["accuracy"].n
    if not n:
        return Section("label-errors", "Label errors", "No label is likely wrong")
    pairs: dict[tuple[str, str], int] = {}
    for each in report.errors:
        pairs[each.label, each.likely] = pairs.get((each.label, each.likely), 0) + 1
    most = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:_N_PAIRS]
    shown = [each for each in report.errors[:n_shown] if each.text is not None]
    return Section(
        anchor="label-errors",
        nav="Label errors",
        title=f"{n:,} of {n_rows:,} labels ({percent(n / n_rows)}) are likely wrong",
        sentences=(
            "By confident learning (Northcutt, Jiang and Chuang 2021): the run that did not see the row is surer of "
            "another class than it is on average of that class's own rows. About "
            f"{percent(report.error_share)} of the labels are estimated to be wrong. Some of the rows are merely hard: "
            "read the text and decide who is right.",
            *as_sentences([f"there are no texts here: {report.problem}"] if report.problem else []),
        ),
        tables=(
            Table(
                "Labels taken for another",
                ("label", "likely", "rows"),
                [(*pair, f"{k:,}") for pair, k in most],
            ),
        ),
        quotes=tuple(Quote(cut(each.text or ""), _about(each)) for each in shown),
    )


def _about(each: LabelError) -> str:
    return (
        f"{each.id} · label {quoted(each.label)}, probability {each.prob_label:.4f} · likely {quoted(each.likely)}, "
        f"{each.prob_likely:.4f}"
    )


def _setup(report: FoldsReport) -> Section:
    return Section(
        anchor="setup",
        nav="Setup",
        title=f"{len(report.folds)} folds, each an ordinary run in this folder",
        sentences=as_sentences(report.notes),
        code=(("config.yaml of the folds, except data.fold", report.config),),
    )


def _figures(report: FoldsReport) -> dict[str, Drawn]:
    key, chosen = leading(report.scores)
    rows = [forests.Row("all rows", chosen, None, is_marked=True)]
    rows += [forests.Row(run, scores[key], None) for run, scores in report.folds.items()]
    is_loss = metrics.height(key, 1.0) < 0
    with style():
        return {"folds": files("folds", forests.forest(rows, NAMES[key], "all rows", is_loss))}


def _texts(settings: Config, record: FoldsRecord) -> tuple[Mapping[str, Example], str | None]:
    """The rows by their ids, or none and why they cannot be read."""
    try:
        splits = data.read(folds.of_all_rows(settings, len(record.folds)).data)
    except SubmillionError as error:
        return {}, f"the rows cannot be read again: {error.problems[0]}"
    if splits.fingerprint != record.fingerprint:
        return {}, f"{settings.data.source} now has different rows from those that were trained on"
    return {example.id: example for example in (*splits.train, *splits.validation, *splits.test)}, None


def _error(
    predictions: Predictions, labels: tuple[str, ...], texts: Mapping[str, Example], row: int, likely: int
) -> LabelError:
    label, probs = int(predictions.label_ids[row]), predictions.probs[row]
    example = texts.get(predictions.ids[row])
    return LabelError(
        id=predictions.ids[row],
        label=labels[label],
        likely=labels[likely],
        prob_label=float(probs[label]),
        prob_likely=float(probs[likely]),
        text=None if example is None else " ⏐ ".join(filter(None, (example.text, example.text_pair))),
    )


def values(report: FoldsReport) -> dict[str, Any]:
    """Return what `data errors --json` prints."""
    return {"n_rows": report.scores["accuracy"].n, "error_share": report.error_share} | {
        "problem": report.problem,
        "errors": [asdict(each) for each in report.errors],
    }


def write_errors(output: Output, report: FoldsReport) -> None:
    """Write all likely label errors as CSV; ConfigError if the output may not be written."""
    if output.path.suffix.lower() != ".csv":
        raise ConfigError(f"{output.path}: likely label errors are written as .csv")
    if not output.path.absolute().parent.is_dir():
        raise ConfigError(f"{output.path.absolute().parent}: no such folder; make it first")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "label", "likely", "prob_label", "prob_likely", "text"))
    for each in report.errors:
        probs = (f"{each.prob_label:.6f}", f"{each.prob_likely:.6f}")
        writer.writerow((each.id, each.label, each.likely, *probs, each.text or ""))
    output.write(text.getvalue())
