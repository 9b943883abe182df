"""What a run's predictions show, a section each. `several` has those of rows with several labels only, `making` how the
run came about."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from submillion import runs
from submillion.judging.comparison import LEVEL, lowest_and_highest, p_value
from submillion.judging.metrics import NAMES, Score, key_of, leading, usual_metric
from submillion.reports import several
from submillion.reports.baselines import Baseline
from submillion.reports.figures import MAX_CLASSES, confused_classes
from submillion.reports.run import Mistake, Report
from submillion.reports.sections import Quote, Section, Table, as_sentences, cut, quoted
from submillion.text import interval, percent

_N_PAIRS = 10


def answer(report: Report) -> Section:
    """The score against the baselines."""
    own = report.scores[report.split]
    usual, (key, chosen) = _usual(report), leading(own)
    selected = ", after selection" if report.after_selection else ""
    title = f"Right on {percent(chosen.value)} of {chosen.n:,} {report.split} rows{selected}"
    sentences = [f"{_named(usual)} {interval(own[usual])}, with its 95 % interval. {_rights(report)}"]
    if key != "accuracy":
        title = f"{NAMES[key]} {chosen.value:.4f} on {chosen.n:,} {report.split} rows{selected}"
    if key != usual:
        sentences = [f"{_named(key)} {interval(chosen)} (train.metric).", *sentences]
    sentences += [] if report.several is None else several.about_thresholds(report, report.several)
    sentences += [*as_sentences(report.about_groups), *(_against(baseline) for baseline in report.baselines)]
    if not report.baselines[0].knows_words:
        why = report.data_problem or "no training text has a word"
        sentences.append(f"There is no baseline on words: {why}.")
    of_one = "A dot is the accuracy, its line the 95 % interval (Wilson)."
    of_several = f"A dot is the {NAMES[key]}, its line the 95 % interval."
    return Section(
        anchor="answer",
        nav="Answer",
        title=title[:1].upper() + title[1:],
        sentences=tuple(sentences),
        figure="scores",
        reading=f"{of_one if report.several is None else of_several} The table tests the differences, since "
        "all are judged on the same rows: intervals may overlap even if a difference is real.",
        tables=(_baseline_table(report), _score_table(report)),
    )


def _usual(report: Report) -> str:
    """The key of the score that is always reported."""
    return key_of(usual_metric(report.several is not None))


def _named(key: str) -> str:
    return NAMES[key][:1].upper() + NAMES[key][1:]


def _rights(report: Report) -> str:
    if report.split == "test":
        noted = f"opened {runs.times(report.n_test_reads)}"
        known = noted if report.n_test_reads else "opened; how often is not recorded in this folder"
        return f"These test rows were {known}: a test is fresh only once."
    sealed = "The test split is sealed." if report.data["rows"]["test"] else "There is no test split."
    if report.after_selection:
        return f"{_selected(report)} {sealed}"
    return f"Not selected on: there was one evaluation. {sealed}" if report.evaluations else sealed


def _selected(report: Report) -> str:
    chosen = "After selection: the checkpoint was chosen on these rows, so the score is slightly too high"
    if report.corrected is None:
        return f"{chosen}."
    return f"{chosen}; corrected for that, it is {interval(report.corrected)} (bootstrap of the choice)."


def _against(baseline: Baseline) -> str:
    difference = baseline.difference
    what = f"{abs(100 * difference.value):.1f} points"
    span = f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    if difference.p >= LEVEL:
        name = baseline.in_sentence
        line = f"It cannot be told from {name} on these rows: {100 * difference.value:+.1f} points {span}"
    else:
        how = "better" if difference.value > 0 else "worse"
        line = f"It is {what} {how} than {baseline.in_sentence} {span}"
    return f"{line}: {baseline.about}."


def _baseline_table(report: Report) -> Table:
    own, usual = report.scores[report.split], _usual(report)
    more = ("macro_f1",) if report.several is None else ("macro_f1", "subset_accuracy")
    keys = tuple(dict.fromkeys((leading(own)[0], usual, *more)))
    rows = [("this run", *(interval(own[key]) for key in keys), "", "")]
    for baseline in report.baselines:
        difference = baseline.difference
        scores = (interval(baseline.scores.get(key)) for key in keys)
        rows.append((baseline.name, *scores, interval(difference, sign="+"), p_value(difference.p)))
    test = "McNemar" if report.several is None else "bootstrap"
    heads = ("", *(NAMES[key] for key in keys), f"{NAMES[usual]}: run minus baseline", f"p ({test})")
    return Table(f"On the same {report.split} rows, trained on the same split", heads, rows)


def _score_table(report: Report) -> Table:
    keys = report.scores[report.split]
    rows = [(NAMES[key], *(interval(scores.get(key)) for scores in report.scores.values())) for key in keys]
    chosen = len(report.evaluations) > 1
    heads = tuple(
        f"{split}, {leading(scores)[1].n:,} rows" + (" (after selection)" if split == "validation" and chosen else "")
        for split, scores in report.scores.items()
    )
    return Table("Every score with its 95 % interval", ("", *heads), rows)


def confusion(report: Report) -> Section:
    """Which classes are taken for which."""
    pairs = _confused_pairs(report)
    shown = len(confused_classes(report.confusion))
    some = shown < len(report.labels)
    rows = [(report.labels[t], report.labels[p], f"{n:,}", percent(n / report.classes[t].n_true)) for t, p, n in pairs]
    limit = f"Of {len(report.labels)} classes, the {shown} most confused are drawn. " if some else ""
    return Section(
        anchor="confusion",
        nav="Confusion",
        title=_confusion_title(report),
        figure="confusion",
        reading=f"{limit}Each line is a true class: how many of its rows were predicted as what, and their share of "
        "the line, which is also the colour. The diagonal is right.",
        tables=(Table("The commonest mistakes", ("true", "predicted", "rows", "of the class"), rows),) if rows else (),
    )


def _confused_pairs(report: Report) -> list[tuple[int, int, int]]:
    counts = np.array(report.confusion)
    np.fill_diagonal(counts, 0)
    cells = [(int(t), int(p), int(counts[t, p])) for t, p in zip(*np.nonzero(counts), strict=True)]
    return sorted(cells, key=lambda cell: (-cell[2], cell[:2]))[:_N_PAIRS]


def _confusion_title(report: Report) -> str:
    counts = np.array(report.confusion)
    both = np.triu(counts + counts.T, 1)
    if not both.any():
        return "No class is mistaken for another"
    a, b = (int(i) for i in np.unravel_index(both.argmax(), both.shape))
    if len(report.labels) == 2:
        t, p = (a, b) if counts[a, b] >= counts[b, a] else (b, a)
        names = f"{quoted(report.labels[t])} are mistaken for {quoted(report.labels[p])}"
        return f"{counts[t, p]:,} rows of {names}, {counts[p, t]:,} the other way"
    rows = "1 row" if both[a, b] == 1 else f"{both[a, b]:,} rows"
    return f"{quoted(report.labels[a])} and {quoted(report.labels[b])} are confused most: {rows}"


def classes(report: Report) -> Section:
    """Precision, recall and F1 of each class."""
    worst = min(range(len(report.labels)), key=lambda number: report.classes[number].f1.value)
    is_any_worse = report.classes[worst].f1.value < max(each.f1.value for each in report.classes)
    who = f"{quoted(report.labels[worst])} has the lowest F1" if is_any_worse else "All classes have the same F1"
    rows = [
        (label, f"{each.n_true:,}", interval(each.precision), interval(each.recall), interval(each.f1))
        for label, each in zip(report.labels, report.classes, strict=True)
    ]
    return Section(
        anchor="classes",
        nav="Classes",
        title=f"{who}: {interval(report.classes[worst].f1)}",
        figure="classes",
        reading=f"{_limit(report, 'with the lowest F1')}Precision: of the rows predicted as the class, the share that "
        "is right. Recall: of its own rows, the share that is found. F1 is their harmonic mean. Lines are 95 % "
        "intervals (Wilson).",
        tables=(Table("Each class", ("class", "rows", "precision", "recall", "F1"), rows),),
    )


def _limit(report: Report, which: str) -> str:
    n = len(report.labels)
    return f"Of {n} classes, the {MAX_CLASSES} {which} are drawn. " if n > MAX_CLASSES else ""


def distribution(report: Report) -> Section:
    """How often each class is predicted, against how often it is true."""
    unit = several.unit(report)
    most = max(range(len(report.labels)), key=lambda i: abs(report.classes[i].n_predicted - report.classes[i].n_true))
    each = report.classes[most]
    more = "more" if each.n_predicted > each.n_true else "less"
    against = f"{each.n_predicted:,} against {each.n_true:,} rows"
    title = f"{quoted(report.labels[most])} is predicted {more} often than it is true: {against}"
    if each.n_predicted == each.n_true:
        title = f"Each {unit} is predicted as often as it is true"
    rows = [
        (
            label,
            f"{each.n_true:,}",
            interval(each.true_share),
            f"{each.n_predicted:,}",
            interval(each.predicted_share),
        )
        for label, each in zip(report.labels, report.classes, strict=True)
    ]
    heads = (unit, "true rows", "share", "predicted rows", "share")
    return Section(
        anchor="distribution",
        nav="Distribution",
        title=title,
        figure="distribution",
        reading=f"{_limit(report, 'that differ most')}Bars of unequal length: the {unit} is predicted too often or "
        "too rarely. Equal bars do not mean that the rows are the right ones.",
        tables=(Table("Shares with 95 % intervals", heads, rows),),
    )


def calibration(report: Report) -> Section:
    """Whether confidence can be trusted, before and after temperature scaling."""
    measured = report.calibration
    before, after, temperatures = measured.ece_before, measured.ece_after, measured.temperatures
    scaled = "There are too few rows for temperature scaling."
    if temperatures:
        span = f"temperature scaling ({min(temperatures):.2f} to {max(temperatures):.2f} over folds)"
        scaled = f"{_scaling(measured.ece_change, span)}: {before.value:.4f} → {after.value:.4f}."
    rows = [("as trained", interval(before)), ("temperature scaled, cross-fitted", interval(after))]
    return Section(
        anchor="calibration",
        nav="Calibration",
        title=_calibration_title(report),
        sentences=(scaled, "Each fifth of the rows is scaled by the temperature that fits the other four fifths best."),
        figure="reliability",
        reading=_IN_BINS if report.several is None else several.IN_BINS,
        tables=(Table("Expected calibration error", ("", f"ECE on {report.split}"), rows),),
    )


_IN_BINS = (
    "Rows in 15 bins by confidence, a larger point for more rows: those below the dashed line are surer than they are "
    "right. ECE is the mean distance from that line, each bin weighted by its rows."
)


def _scaling(change: Score, span: str) -> str:
    """What scaling does to the ECE, as far as these rows can tell."""
    if change.high < 0:
        size = Score(-change.value, -change.high, -change.low, change.n)
        return f"{span[:1].upper()}{span[1:]} lowers the ECE by {interval(size)}"
    if change.low > 0:
        return f"{span[:1].upper()}{span[1:]} raises the ECE by {interval(change)}"
    return f"The ECE with {span} cannot be told from the one without it; it differs by {interval(change, sign='+')}"


def _calibration_title(report: Report) -> str:
    """Whether confidence is too high or too low, or else whether it is off at all."""
    measured, is_one = report.calibration, report.several is None
    if measured.gap.low > 0 or measured.gap.high < 0:
        return _gap_title(report, measured.gap) if is_one else several.calibration_title(report)
    if measured.ece_before.low == 0:
        what = "Confidence matches accuracy" if is_one else "Probabilities match how often labels are true"
        return f"{what} as far as {measured.ece_before.n:,} rows can tell"
    what = "Confidence is" if is_one else "Probabilities are"
    return f"{what} off, but neither too high nor too low overall: ECE {interval(measured.ece_before)}"


def _gap_title(report: Report, gap: Score) -> str:
    mean = report.scores[report.split]["accuracy"].value
    how = "too sure" if gap.value > 0 else "not sure enough"
    return f"Confidence is {how}: {percent(mean + gap.value)} on average, while {percent(mean)} are right"


def coverage(report: Report) -> Section:
    """What is gained by answering only the surest rows."""
    points, every = report.coverage, report.coverage[-1]
    near = min(points, key=lambda point: abs(point.share - 0.8))
    surest, of_all = f"{near.accuracy.value:.4f}", f"{every.accuracy.value:.4f}"
    title = f"Answering the surest {percent(near.share)} gives accuracy {surest}, all rows {of_all}"
    if float(surest) <= float(of_all):
        title = f"Answering only the surest {percent(near.share)} gains nothing: accuracy {surest}, all rows {of_all}"
    wanted = dict.fromkeys(
        min(points, key=lambda point: abs(point.share - share)) for share in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
    )
    rows = [(percent(p.share), f"{p.accuracy.n:,}", f"{p.threshold:.4f}", interval(p.accuracy)) for p in wanted]
    return Section(
        anchor="coverage",
        nav="Risk–coverage",
        title=title if len(points) > 1 else "All rows are equally sure",
        figure="coverage",
        reading="From the left: the accuracy if only the surest rows are answered and the others are left to people. "
        "The band is the 95 % interval at each point (Wilson).",
        tables=(Table("Where to draw the line", ("answered", "rows", "confidence at least", "accuracy"), rows),),
    )


def lengths(report: Report) -> Section:
    """Accuracy against the length of texts."""
    if report.lengths is None:
        return Section(
            "lengths", "Length", "Accuracy by text length is missing: it needs the texts", (f"{report.data_problem}.",)
        )
    worst = min(report.lengths, key=lambda each: each.accuracy.value)
    best = max(report.lengths, key=lambda each: each.accuracy.value)
    title = "These rows show no text length to be harder than another"
    shares = [replace(each.accuracy, n=max(round(each.worth), 1)) for each in report.lengths]
    if (p := lowest_and_highest(shares)) <= LEVEL:
        hard, easy = words(worst.n_least, worst.n_most), words(best.n_least, best.n_most)
        shares = f"{percent(worst.accuracy.value)} right against {percent(best.accuracy.value)}"
        title = f"Texts of {hard} are harder than those of {easy}: {shares} (p {p_value(p)})"
    rows = [(words(e.n_least, e.n_most), f"{e.accuracy.n:,}", interval(e.accuracy)) for e in report.lengths]
    what = "accuracy" if report.several is None else "subset accuracy"
    return Section(
        anchor="lengths",
        nav="Length",
        title=title,
        figure="lengths",
        reading="Rows in groups of about equal size by their number of words. Lines are 95 % intervals."
        + ("" if report.several is None else " A row is right if all of its labels are."),
        tables=(Table(f"{what[:1].upper()}{what[1:]} by length", ("length", "rows", what), rows),),
    )


def words(least: int, most: int) -> str:
    """Return a range of words for a sentence.

    >>> words(3, 9), words(1, 1)
    ('3 to 9 words', '1 word')
    """
    return f"{least} to {most} words" if least != most else f"{least} word{'s' if least != 1 else ''}"


def mistakes(report: Report) -> Section:
    """The surest mistakes, some of which may be errors of the labels."""
    if report.mistakes is None:
        return Section(
            "mistakes", "Mistakes", "The surest mistakes are missing: they need the texts", (f"{report.data_problem}.",)
        )
    if not report.mistakes:
        return Section("mistakes", "Mistakes", "No validation row is wrong")
    n_sure = sum(each.confidence >= 0.9 for each in report.mistakes)
    more = " or more" if n_sure == len(report.mistakes) < report.n_mistakes else ""
    return Section(
        anchor="mistakes",
        nav="Mistakes",
        title=f"{n_sure}{more} of {report.n_mistakes:,} validation mistakes are made with confidence 0.9 or higher",
        sentences=(
            "Suspected label errors: where the model is sure and the label says otherwise, read the text and decide "
            "who is right. Texts are from the validation split; those of test stay unread.",
        ),
        quotes=tuple(Quote(cut(each.text), _about(each)) for each in report.mistakes),
    )


def _about(mistake: Mistake) -> str:
    if mistake.wrong is not None:
        return several.about_mistake(mistake)
    prediction = f"predicted {quoted(str(mistake.predicted))}, confidence {mistake.confidence:.4f}"
    return f"{mistake.id} · label {quoted(str(mistake.label))} · {prediction}"
