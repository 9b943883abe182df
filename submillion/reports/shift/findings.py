"""What a shift report says, a section each: answer, classes, class shares, accuracy, texts, disagreement, limits."""

from __future__ import annotations

from typing import Any

from submillion.judging.comparison import LEVEL, p_value
from submillion.judging.metrics import Score
from submillion.judging.shift import HELD, Drift, Estimates, LabelRates, Lengths, StatedAccuracy
from submillion.reports import acting
from submillion.reports.drawing import BLUE, MUTED, ORANGE, Drawn, canvas, dots, files, style
from submillion.reports.figures import MAX_CLASSES, shown_classes
from submillion.reports.sections import Section, Table, quoted
from submillion.reports.shift import several
from submillion.reports.shift.reading import Disagreement, OfRun, ShiftReport
from submillion.text import interval, percent, percents

_LEVEL = 0.05


def sections(report: ShiftReport) -> list[Section]:
    """Return the sections in reading order; those about one run are about the first."""
    if report.has_several:
        parts = [several.answer(report, _read(report)), several.labels(report), texts(report)]
    else:
        answered = acting.section_of_shift(report.runs[0].acting)
        parts = [answer(report), classes(report), shares(report), accuracy(report), answered, texts(report)]
    return [*parts, *([disagreement(report)] if report.pairs else []), limits(report), setup(report)]


def _of_one(one: OfRun) -> tuple[Estimates, StatedAccuracy]:
    """The estimates of a run whose rows have one label each, and the verdict on them."""
    assert isinstance(one.estimates, Estimates), "rows have several labels"
    assert one.verdict is not None, "what is estimated is judged"
    return one.estimates, one.verdict


def answer(report: ShiftReport) -> Section:
    """The stated accuracy, and what speaks against it."""
    _, verdict = _of_one(report.runs[0])
    stated = verdict.accuracy
    about = f"{percent(stated.value)} of these predictions are estimated to be right"
    span = f"interval {100 * stated.low:.0f} to {100 * stated.high:.0f} %; such intervals {HELD}"
    title = f"About {about} ({span})"
    if not verdict.is_trusted:
        title = f"Not to be trusted: about {about} ({span})"
    rows = []
    for each in report.runs:
        estimates, of_run = _of_one(each)
        trust = "" if of_run.is_trusted else "not to be trusted"
        rows.append((each.run, percents(of_run.accuracy), percents(estimates.validation), trust))
    return Section(
        anchor="answer",
        nav="Answer",
        title=title,
        sentences=(*verdict.cautions, *_read(report)),
        figure="accuracy",
        reading="Dots are accuracies, lines their intervals. Those of ATC and DoC are 95 % intervals for chance "
        f"alone; the stated one includes how far the methods were off when the truth was known: it {HELD}.",
        tables=(Table("Runs", ("run", "accuracy here, estimated", "on validation, measured", ""), rows),),
    )


def _read(report: ShiftReport) -> tuple[str, ...]:
    lines = []
    if report.n_read < report.n_rows:
        lines.append(f"{report.n_read:,} of the {report.n_rows:,} rows were read: a fixed sample.")
    if report.has_labels:
        lines.append(
            "The file has a label column, which was not read. If its labels are true, `submillion evaluate` "
            "measures the accuracy, and no estimate is needed."
        )
    return tuple(lines)


def classes(report: ShiftReport) -> Section:
    """Predicted classes here against those on validation and the true ones in training."""
    one = report.runs[0]
    estimates, _ = _of_one(one)
    moved = max(range(len(report.labels)), key=lambda i: abs(_change(estimates, i)))
    title = (
        f"{quoted(report.labels[moved])} is predicted for {percent(estimates.predicted[moved].value)} of rows, "
        f"{percent(estimates.predicted_validation[moved].value)} on validation"
    )
    if estimates.test.p >= LEVEL:
        title = "Predicted classes are distributed as on validation, as far as these rows can tell"
    test = f"Total variation {estimates.test.distance:.3f}: that share of rows would have to change class. "
    test += f"Chi-squared test of equal shares: p {p_value(estimates.test.p)}"
    if estimates.test.least_expected < 5:
        test += ", rough: a class is expected fewer than 5 times"
    rows = [
        (
            label,
            percent(one.train_shares[i]),
            percents(estimates.predicted_validation[i]),
            percents(estimates.predicted[i]),
        )
        for i, label in enumerate(report.labels)
    ]
    heads = ("class", "training, true", "validation, predicted", "here, predicted")
    return Section(
        anchor="classes",
        nav="Classes",
        title=title,
        sentences=(
            f"{test}.",
            "Predictions are compared with predictions, so the model's usual errors do not pass for a shift. The "
            "test says that something has changed, not what: other classes, other texts, or errors that now fall "
            "elsewhere. With many rows it finds differences too small to matter; without one, texts may still differ.",
        ),
        figure="shares",
        reading=f"One class per line{_most(report)}; lines are 95 % intervals (Wilson).",
        tables=(Table("Shares of classes", heads, rows),),
    )


def _change(estimates: Estimates | LabelRates, i: int) -> float:
    return estimates.predicted[i].value - estimates.predicted_validation[i].value


def _most(report: ShiftReport) -> str:
    return f", the {MAX_CLASSES} that moved most" if len(report.labels) > MAX_CLASSES else ""


def shares(report: ShiftReport) -> Section:
    """Estimated shares of true classes."""
    one = report.runs[0]
    estimates, verdict = _of_one(one)
    title = "If only the classes' shares have changed, they are these"
    if not verdict.is_trusted:
        title = "Class shares, if only they have changed: here that is doubtful"
    sentences = [
        "Both methods assume label shift: the texts of each class look as in training, and only its frequency "
        "has changed. Nothing in these numbers shows if that is wrong, and then they can be entirely wrong.",
        f"The two differ by {percent(estimates.apart)} of rows (total variation). Where they disagree, the assumption "
        "or the calibration does not hold; where they agree, both may be wrong in the same way.",
    ]
    if estimates.missing:
        names = ", ".join(quoted(report.labels[i]) for i in estimates.missing)
        sentences.append(f"BBSE takes the share of {names} as 0: no validation row has it.")
    rows = [
        (label, percent(one.train_shares[i]), percents(estimates.bbse[i]), percents(estimates.em[i]))
        for i, label in enumerate(report.labels)
    ]
    heads = ("class", "training, true", "here: BBSE", "here: EM")
    return Section(
        anchor="shares",
        nav="Class shares",
        title=title,
        sentences=tuple(sentences),
        tables=(Table("Estimated shares of true classes, 95 % intervals by bootstrap", heads, rows),),
    )


def accuracy(report: ShiftReport) -> Section:
    """What the stated accuracy is made of."""
    estimates, verdict = _of_one(report.runs[0])
    stated = verdict.accuracy
    change = 100 * (estimates.confidence - estimates.confidence_validation)
    selected = "after selection of the checkpoint: slightly too high"
    measured = selected if report.runs[0].after_selection else "chance alone"
    rows = [
        ("validation, measured", percents(estimates.validation), measured),
        ("here: ATC", percents(estimates.atc), "chance alone"),
        ("here: DoC", percents(estimates.doc), "chance alone"),
        ("here: stated", percents(stated), f"with the methods' errors: {HELD}"),
    ]
    return Section(
        anchor="accuracy",
        nav="Accuracy",
        title=f"Confidence is {abs(change):.1f} points {'lower' if change < 0 else 'higher'} than on validation",
        sentences=(
            f"Mean confidence, temperature scaled on validation (T = {estimates.temperature:.2f}): "
            f"{percent(estimates.confidence_validation)} there, {percent(estimates.confidence)} here.",
            "ATC counts the rows that are surer than a threshold, set so that on validation it counts as many as are "
            "right. DoC lowers validation's accuracy by what mean confidence has lost. Both see an error only where it "
            "makes the model unsure: rows that are wrong with confidence are counted as right.",
        ),
        tables=(Table("Accuracy", ("", "accuracy", "its interval covers"), rows),),
    )


def texts(report: ShiftReport) -> Section:
    """How the texts differ from the training texts."""
    one = report.runs[0]
    if one.drift is None:
        return Section(
            "texts", "Texts", "How the texts differ is unknown: it needs those of training", (f"{one.data_problem}.",)
        )
    drift = one.drift
    rows = [
        ("words per text: median [quartiles]", *map(_lengths, drift.lengths)),
        ("words not in training", "–", percents(drift.unseen_validation), percents(drift.unseen)),
    ]
    sentences = [
        f"Lengths differ from training's by {drift.length_distance:.2f} (Kolmogorov and Smirnov: 0 alike, 1 apart; "
        f"p {p_value(drift.length_p)}). Validation texts, unseen too, show what is usual.",
        "A classifier that tells these texts from training's by their words needs no labels, and knows nothing about "
        "the model: texts that differ may be as easy, and errors may rise without any new word. It ignores "
        "word order, case and punctuation. Different class shares alone bring different words.",
    ]
    tables = [Table("Texts", ("", "training", "validation", "here"), rows)]
    if drift.telling:
        words = [(each.word, percent(each.in_training), percent(each.here)) for each in drift.telling]
        tables.append(
            Table("The most telling words: share of texts that have them", ("word", "training", "here"), words)
        )
    return Section("texts", "Texts", _drift_title(drift), tuple(sentences), tables=tuple(tables))


def _lengths(lengths: Lengths) -> str:
    return f"{lengths.median:.0f} [{lengths.low:.0f}, {lengths.high:.0f}]"


def _drift_title(drift: Drift) -> str:
    if drift.auc is None:
        return "There are too few words to tell these texts from training's"
    if drift.auc.low <= 0.5:
        return f"By their words these texts cannot be told from training's (AUC {_auc(drift.auc)})"
    return f"By their words these texts are told from training's with AUC {_auc(drift.auc)}"


def _auc(score: Score) -> str:
    return f"{interval(score, digits=2)}, {score.n:,} texts"


def disagreement(report: ShiftReport) -> Section:
    """How often runs predict different classes."""
    most = max(report.pairs, key=lambda pair: pair.here.value)
    what = "labels" if report.has_several else "classes"
    rows = [
        (f"{pair.first} | {pair.second}", percents(pair.here), percents(pair.validation) if pair.validation else "–")
        for pair in report.pairs
    ]
    return Section(
        anchor="disagreement",
        nav="Disagreement",
        title=f"{_named(most)} predict different {what} for {percent(most.here.value)} of rows",
        sentences=(
            "Where two runs differ, at least one is wrong: their errors add up to that share of rows "
            "or more, whatever the shift. So on average these two "
            f"are right on at most {percent(1 - most.here.value / 2)} of rows"
            f"{', all labels of a row taken together' if report.has_several else ''}.",
            "Runs that agree may be wrong together, and under a shift they often are: disagreement underestimates "
            "errors. It equals them only if the runs are calibrated as an ensemble (Jiang et al. 2022).",
        ),
        tables=(Table("Rows that two runs label differently", ("runs", "here", "validation"), rows),),
    )


def _named(pair: Disagreement) -> str:
    return f"{pair.first} and {pair.second}"


def limits(report: ShiftReport) -> Section:
    """What no number on the page can say."""
    fits_none = "Rows that belong to none of the classes still get one."
    return Section(
        anchor="limits",
        nav="Limits",
        title="What these numbers cannot say",
        sentences=(
            "No method finds the accuracy under every shift: for each there are texts on which it is right and others, "
            "with the same confidences, on which it is wrong (Garg et al. 2022, section 3).",
            "If labels mean something else here (other annotators, another rule, what counts as neutral), "
            "nothing in texts or predictions shows it.",
            *(() if report.has_several else (fits_none,)),
            "The way out is labels: 200 rows drawn at random and labelled give an accuracy of 70 % with an interval of "
            "13 points, whatever the shift.",
        ),
    )


def setup(report: ShiftReport) -> Section:
    """What was read."""
    rows = [("file", report.source), ("rows of the file", f"{report.n_rows:,}"), ("rows read", f"{report.n_read:,}")]
    rows += [(f"run {number}", one.run) for number, one in enumerate(report.runs, start=1)]
    rows.append(("validation rows of run 1", f"{report.runs[0].estimates.n_validation:,}"))
    return Section("setup", "Setup", "What was read", tables=(Table("Input", ("", ""), rows),))


def draw(report: ShiftReport, with_png: bool = True) -> dict[str, Drawn]:
    """Return the figures by name."""
    with style():
        drawn = {} if report.has_several else {"accuracy": _draw_accuracy(report)}
        drawn["shares"] = _draw_shares(report)
        return {name: files(name, figure, with_png) for name, figure in drawn.items()}


def _draw_accuracy(report: ShiftReport) -> Any:
    """The run that the report is about, the first: validation, both methods, what is stated."""
    estimates, verdict = _of_one(report.runs[0])
    rows = [
        ("validation, measured", estimates.validation),
        ("here: ATC, chance alone", estimates.atc),
        ("here: DoC, chance alone", estimates.doc),
        ("here: stated", verdict.accuracy),
    ]
    figure = canvas(0.55 + 0.34 * len(rows))
    axes = figure.subplots()
    dots(axes, [name for name, _ in rows], [[score for _, score in rows]], [BLUE], [None])
    axes.set_xlabel("accuracy")
    axes.locator_params(axis="x", nbins=6)
    return figure


def _draw_shares(report: ShiftReport) -> Any:
    one = report.runs[0]
    estimates = one.estimates
    apart = [abs(_change(estimates, i)) for i in range(len(report.labels))]
    chosen = shown_classes(apart, MAX_CLASSES)
    training = [Score(share, share, share, 0) for share in one.train_shares]
    series = [[each[i] for i in chosen] for each in (training, estimates.predicted_validation, estimates.predicted)]
    names = [report.labels[i] for i in chosen]
    figure = canvas(0.8 + 0.46 * len(names))
    axes = figure.subplots()
    dots(axes, names, series, [MUTED, BLUE, ORANGE], ["training, true", "validation, predicted", "here, predicted"])
    axes.set_xlabel("share of rows")
    figure.legend(loc="outside lower right", ncols=3)
    return figure
