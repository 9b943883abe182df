"""What a run's page says, a section each: what its predictions show, and how it came about."""

from __future__ import annotations

import json
import shlex

import numpy as np

from submillion import runs
from submillion.judging.comparison import LEVEL, p_value
from submillion.judging.metrics import NAMES, leading, wilson
from submillion.reports.baselines import Baseline
from submillion.reports.curves import BAND, evaluations_table
from submillion.reports.figures import MAX_CLASSES, confused_classes
from submillion.reports.run import Mistake, Report
from submillion.reports.sections import Quote, Section, Table, as_sentences, cut, quoted
from submillion.text import duration, interval, percent

_N_PAIRS = 10


def answer(report: Report) -> Section:
    """The score against both baselines."""
    accuracy, (key, chosen) = report.scores[report.split]["accuracy"], leading(report.scores[report.split])
    selected = ", after selection" if report.after_selection else ""
    title = f"Right on {percent(accuracy.value)} of {accuracy.n:,} {report.split} rows{selected}"
    sentences = [f"Accuracy {interval(accuracy)}, with its 95 % interval. {_rights(report)}"]
    if key != "accuracy":
        title = f"{NAMES[key]} {chosen.value:.4f} on {accuracy.n:,} {report.split} rows{selected}"
        sentences = [f"{NAMES[key]} {interval(chosen)}, which chose the checkpoint (train.metric).", *sentences]
    sentences += [_against(baseline) for baseline in report.baselines]
    if report.baselines[0].name == "majority class":
        why = report.data_problem or "no training text has a word"
        sentences.append(f"There is no baseline on words: {why}.")
    return Section(
        anchor="answer",
        nav="Answer",
        title=title[:1].upper() + title[1:],
        sentences=tuple(sentences),
        figure="scores",
        reading="A dot is the accuracy, its line the 95 % interval (Wilson). The test of a difference is in the table, "
        "since all three judge the same rows: intervals may overlap and the difference still be real.",
        tables=(_baseline_table(report), _score_table(report)),
    )


def _rights(report: Report) -> str:
    if report.split == "test":
        noted = f"opened {runs.times(report.n_test_reads)}"
        known = noted if report.n_test_reads else "opened; how often is not noted in this folder"
        return f"These test rows were {known}: a test is fresh only once."
    sealed = "The test split is sealed." if report.data["rows"]["test"] else "There is no test split."
    if report.after_selection:
        chosen = "After selection: the checkpoint was chosen on these rows, so the score is a little too good."
        return f"{chosen} {sealed}"
    return f"Not selected on: there was one evaluation. {sealed}" if report.evaluations else sealed


def _against(baseline: Baseline) -> str:
    difference = baseline.difference
    what = f"{abs(100 * difference.value):.1f} points"
    span = f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    if difference.p >= LEVEL:
        found = f"It cannot be told from {baseline.name} on these rows: {100 * difference.value:+.1f} points {span}"
    else:
        found = f"It is {what} {'better' if difference.value > 0 else 'worse'} than {baseline.name} {span}"
    return f"{found}: {baseline.about}."


def _baseline_table(report: Report) -> Table:
    own = report.scores[report.split]
    keys = tuple(dict.fromkeys((leading(own)[0], "accuracy", "macro_f1")))
    rows = [("this run", *(interval(own[key]) for key in keys), "", "")]
    for baseline in report.baselines:
        difference = baseline.difference
        scores = (interval(baseline.scores.get(key)) for key in keys)
        rows.append((baseline.name, *scores, interval(difference, sign="+"), p_value(difference.p)))
    heads = ("", *(NAMES[key] for key in keys), "accuracy: run minus baseline", "p (McNemar)")
    return Table(f"On the same {report.split} rows, trained on the same split", heads, rows)


def _score_table(report: Report) -> Table:
    keys = report.scores[report.split]
    rows = [(NAMES[key], *(interval(scores.get(key)) for scores in report.scores.values())) for key in keys]
    chosen = len(report.evaluations) > 1
    heads = tuple(
        f"{split}, {scores['accuracy'].n:,} rows" + (" (after selection)" if split == "validation" and chosen else "")
        for split, scores in report.scores.items()
    )
    return Table("Every score with its 95 % interval", ("", *heads), rows)


def confusion(report: Report) -> Section:
    """Which classes are taken for which."""
    pairs = _confused_pairs(report)
    shown = len(confused_classes(report.confusion))
    some = shown < len(report.labels)
    rows = [(report.labels[t], report.labels[p], f"{n:,}", percent(n / report.classes[t].n_true)) for t, p, n in pairs]
    limit = f"Of {len(report.labels)} classes the {shown} most confused are drawn. " if some else ""
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
        return "No class is taken for another"
    a, b = (int(i) for i in np.unravel_index(both.argmax(), both.shape))
    if len(report.labels) == 2:
        t, p = (a, b) if counts[a, b] >= counts[b, a] else (b, a)
        names = f"{quoted(report.labels[t])} are taken for {quoted(report.labels[p])}"
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
    return f"Of {n} classes the {MAX_CLASSES} {which} are drawn. " if n > MAX_CLASSES else ""


def distribution(report: Report) -> Section:
    """How often each class is predicted, against how often it is true."""
    n = sum(each.n_true for each in report.classes)
    most = max(range(len(report.labels)), key=lambda i: abs(report.classes[i].n_predicted - report.classes[i].n_true))
    each = report.classes[most]
    more = "more" if each.n_predicted > each.n_true else "less"
    against = f"{each.n_predicted:,} against {each.n_true:,} rows"
    title = f"{quoted(report.labels[most])} is predicted {more} often than it is true: {against}"
    if each.n_predicted == each.n_true:
        title = "Each class is predicted as often as it is true"
    pairs = [(label, each.n_true, each.n_predicted) for label, each in zip(report.labels, report.classes, strict=True)]
    rows = [(label, f"{t:,}", interval(wilson(t, n)), f"{p:,}", interval(wilson(p, n))) for label, t, p in pairs]
    heads = ("class", "true rows", "share", "predicted rows", "share")
    return Section(
        anchor="distribution",
        nav="Distribution",
        title=title,
        figure="distribution",
        reading=f"{_limit(report, 'that differ most')}Bars of unequal length: the class is predicted too often or too "
        "rarely. Equal bars do not mean that the rows are the right ones.",
        tables=(Table("Shares with 95 % intervals", heads, rows),),
    )


def calibration(report: Report) -> Section:
    """Whether confidence can be believed, before and after temperature scaling."""
    found = report.calibration
    before, after, temperatures = found.ece_before, found.ece_after, found.temperatures
    mean = report.scores[report.split]["accuracy"].value
    confidence = sum(b.confidence * b.accuracy.n for b in found.before) / before.n
    how = "too sure" if confidence > mean else "not sure enough"
    title = f"Confidence is {how}: {percent(confidence)} on average, and {percent(mean)} are right"
    if before.low == 0:
        title = f"Confidence fits what is right as far as {before.n:,} rows can tell"
    scaled = "There are too few rows for temperature scaling."
    if temperatures:
        span = f"Temperature scaling ({min(temperatures):.2f} to {max(temperatures):.2f} over folds)"
        verb = "lowers" if after.value < before.value else "does not lower"
        scaled = f"{span} {verb} the ECE: {before.value:.4f} → {after.value:.4f}."
    rows = [("as trained", interval(before)), ("temperature scaled, cross-fitted", interval(after))]
    return Section(
        anchor="calibration",
        nav="Calibration",
        title=title,
        sentences=(scaled, "Each fifth of the rows is scaled by the temperature that fits the other four fifths best."),
        figure="reliability",
        reading="Rows in 15 bins by confidence, a larger point for more rows: those below the dashed line are surer "
        "than they are right. ECE is the mean distance from that line, each bin weighted by its rows.",
        tables=(Table("Expected calibration error", ("", f"ECE on {report.split}"), rows),),
    )


def coverage(report: Report) -> Section:
    """What is gained by answering only the surest rows."""
    points, every = report.coverage, report.coverage[-1]
    near = min(points, key=lambda point: abs(point.share - 0.8))
    gain = f"{near.accuracy.value:.4f}, all rows {every.accuracy.value:.4f}"
    title = f"Answering the surest {percent(near.share)} gives accuracy {gain}"
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
        return Section("lengths", "Length", "Accuracy by text length needs the texts", (f"{report.data_problem}.",))
    worst = min(report.lengths, key=lambda each: each.accuracy.value)
    best = max(report.lengths, key=lambda each: each.accuracy.value)
    title = f"Texts of {words(worst.n_least, worst.n_most)} are hardest: {percent(worst.accuracy.value)} right"
    if worst.accuracy.high >= best.accuracy.low and best.accuracy.high >= worst.accuracy.low:
        title = "No length of text is clearly harder than another"
    rows = [(words(e.n_least, e.n_most), f"{e.accuracy.n:,}", interval(e.accuracy)) for e in report.lengths]
    return Section(
        anchor="lengths",
        nav="Length",
        title=title,
        figure="lengths",
        reading="Rows in groups of about equal size by their number of words. Lines are 95 % intervals.",
        tables=(Table("Accuracy by length", ("length", "rows", "accuracy"), rows),),
    )


def words(least: int, most: int) -> str:
    """Return a range of words as a sentence has it.

    >>> words(3, 9), words(1, 1)
    ('3 to 9 words', '1 word')
    """
    return f"{least} to {most} words" if least != most else f"{least} word{'s' if least != 1 else ''}"


def mistakes(report: Report) -> Section:
    """The surest mistakes, some of which may be errors of the labels."""
    if report.mistakes is None:
        return Section("mistakes", "Mistakes", "The surest mistakes need the texts", (f"{report.data_problem}.",))
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
            "who is right. Texts are of the validation split; those of test stay unread.",
        ),
        quotes=tuple(Quote(cut(each.text), _about(each)) for each in report.mistakes),
    )


def _about(mistake: Mistake) -> str:
    said = f"predicted {quoted(mistake.predicted)}, confidence {mistake.confidence:.4f}"
    return f"{mistake.id} · label {quoted(mistake.label)} · {said}"


def plan(report: Report) -> Section:
    """Where the budget went."""
    plan = report.plan
    share = f"{percent(plan.total / plan.all_params)} of {plan.all_params:,} parameters train"
    limit = "no budget: full fine-tuning" if plan.budget is None else f"of a budget of {plan.budget:,}"
    rows = [
        (part.name, _cell(part.n_layers), _cell(part.rank), _cell(part.params), percent(part.params / plan.total))
        for part in report.parts
    ]
    return Section(
        anchor="plan",
        nav="Plan",
        title=f"{plan.total:,} parameters train, {limit}",
        sentences=(f"{plan.architecture.name}, method {plan.method}: {share}.", *as_sentences(plan.reasons)),
        figure="plan" if plan.targets else None,
        reading="Encoder layers from the bottom up, a column per site: the stronger the colour, the more parameters; r "
        "is the rank. Empty places have no adapter. The head lies on top.",
        tables=(Table("Trainable parameters", ("part", "layers", "rank", "parameters", "share"), rows),),
    )


def _cell(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def training(report: Report) -> Section:
    """Loss and the score that chooses over the steps, and which checkpoint was taken."""
    chosen = [record for record in report.evaluations if record.best][-1:]
    if not chosen:
        return Section("training", "Training", "metrics.jsonl holds no evaluation: how training went is not known")
    best, last, n = chosen[0], report.evaluations[-1], len(report.evaluations)
    key = leading(best.scores)[0]
    height = "lowest" if key == "log_loss" else "highest"
    when = "the last" if best.step == last.step else f"not the last, {last.step:,}"
    title = f"The checkpoint of step {best.step:,} was chosen of {n} evaluated ({when})"
    return Section(
        anchor="training",
        nav="Training",
        title=title if n > 1 else f"The one checkpoint that was evaluated is that of step {best.step:,}",
        sentences=() if report.stopped is None else as_sentences((str(report.stopped),)),
        figure="training",
        reading=f"The chosen checkpoint has the {height} validation {NAMES[key]}; of equals the lowest loss. {BAND}"
        if n > 1
        else BAND,
        tables=(evaluations_table(report.evaluations),),
    )


def cost(report: Report) -> Section:
    """Time by phase, tokens a second, peak memory."""
    training_s = sum(record.seconds for record in report.steps)
    evaluation_s = sum(record.evaluation_s for record in report.evaluations)
    n_tokens = sum(record.tokens for record in report.steps)
    # The first record's seconds hold the work before it too.
    rate_s, rated = sum(r.seconds for r in report.steps[1:]), sum(r.tokens for r in report.steps[1:])
    rows = [
        ("training steps", duration(training_s)),
        ("evaluations on validation", duration(evaluation_s)),
        ("tokens trained on", f"{n_tokens:,}"),
        ("tokens a second, after the first step", f"{rated / rate_s:,.0f}" if rate_s else "–"),
    ]
    if report.cost is None:
        sentences = ("An older version made this run: it kept neither the time of each phase nor the peak of memory.",)
        title = f"Training took {duration(training_s)}"
        return Section("cost", "Cost", title, sentences, tables=(Table("Cost", ("", ""), rows),))
    total = sum(report.cost["phases_s"].values())
    rows += [(f"phase: {name}", duration(seconds)) for name, seconds in report.cost["phases_s"].items()]
    rows += [(f"peak memory, {name}", f"{mib:,.0f} MiB") for name, mib in report.cost["peak_mib"].items()]
    halved = {use: n for use, n in report.cost.get("halved_to_tokens", {}).items() if n is not None}
    rows += [(f"memory did not hold its batches: parts in {use}", f"{n:,} tokens") for use, n in halved.items()]
    resumed = report.cost["resumed_from_step"]
    note = (
        f"The run was resumed after step {resumed:,}: phases are those of the process that finished it."
        if resumed
        else ""
    )
    return Section(
        anchor="cost",
        nav="Cost",
        title=f"The run took {duration(total)} and {report.cost['peak_mib']['process']:,.0f} MiB at most",
        sentences=(note,) if note else (),
        figure="cost",
        reading="Seconds by phase, in the order of the work; evaluations are part of training.",
        tables=(Table("Cost", ("", ""), rows),),
    )


def setup(report: Report) -> Section:
    """The command, the data, the machine and every setting: what repeats the run."""
    environment, facts = report.environment, report.data
    packages = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
    plain = {k: v for k, v in environment.items() if k not in ("packages", "command")}
    cells = {k: ", ".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in plain.items()}
    rows = [*((name.replace("_", " "), cell) for name, cell in cells.items()), ("packages", packages)]
    splits = [
        (label, *(f"{facts['classes'][split].get(label, 0):,}" for split in facts["classes"]))
        for label in report.labels
    ]
    splits.append(("all", *(f"{n:,}" for n in facts["rows"].values())))
    return Section(
        anchor="setup",
        nav="Setup",
        title="What repeats this run",
        sentences=as_sentences(facts.get("warnings", ())),
        tables=(
            Table("Rows of each class", ("class", *facts["classes"]), splits),
            Table("Environment", ("", ""), rows),
        ),
        code=(
            ("The command", shlex.join(environment.get("command", []))),
            ("config.yaml", report.config.rstrip()),
            ("Fingerprints", json.dumps({k: v for k, v in facts.items() if k.endswith("fingerprint")}, indent=1)),
        ),
    )
