"""A finished run's folder becomes the `Report`: every number and text that its pages show, and nothing drawn.

Scores come from the saved predictions and scores.json. Texts, and the baseline on words, need the data once more: it
is read again and its fingerprint checked; if it is gone or changed, `data_problem` says so and the rest stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from submillion import data, planning, runs
from submillion.data import Example, Splits
from submillion.errors import RunError, SubmillionError
from submillion.judging import metrics
from submillion.judging.comparison import Split, corrected
from submillion.judging.metrics import Bin, ClassScores, Predictions, RiskCoverage, Score, thresholds
from submillion.planning import Part, Plan
from submillion.reports import acting, baselines
from submillion.reports.acting import Acting
from submillion.reports.baselines import Baseline
from submillion.runs import EvalRecord, Run, StepRecord, Stopped
from submillion.words import count

N_MISTAKES = 20
_N_LENGTH_BINS = 6


@dataclass(frozen=True)
class LengthBin:
    """Rows whose texts have n_least to n_most words, the accuracy on them, and how many independent rows they are
    worth."""

    n_least: int
    n_most: int
    accuracy: Score
    worth: float


@dataclass(frozen=True)
class Mistake:
    """A validation row that the run is wrong about; `confidence` is the probability of `predicted`.

    With several labels `label` and `predicted` are all that the row has and gets, and `wrong` is the label of the run's
    surest wrong decision: `confidence` is its probability if it is predicted, else that of its absence.
    """

    id: str
    text: str
    label: str | tuple[str, ...]
    predicted: str | tuple[str, ...]
    confidence: float
    wrong: str | None = None


@dataclass(frozen=True)
class Calibration:
    """The reliability diagram and the ECE before and after cross-fitted temperature scaling.

    gap: mean confidence minus accuracy, by `metrics.confidence_gap` · ece_change: after minus before.
    """

    before: list[Bin]
    after: list[Bin]
    ece_before: Score
    ece_after: Score
    temperatures: tuple[float, ...]
    gap: Score
    ece_change: Score


@dataclass(frozen=True)
class Several:
    """What a report adds for rows with several labels.

    thresholds: of each label, chosen on the n_validation validation rows · how: `train.threshold` · few: labels that
    had too few rows there for a threshold of their own · precisions: each label's average precision · together: rows of
    the judged split that have both of two labels, [C][C] · n_true, n_predicted: rows by the number of labels that they
    have, and get, from 0.
    """

    thresholds: tuple[float, ...]
    how: str
    n_validation: int
    few: tuple[str, ...]
    precisions: list[Score]
    together: list[list[int]]
    n_true: list[int]
    n_predicted: list[int]


@dataclass(frozen=True)
class Report:
    """A run as its pages show it. `split` is the one that is judged: test if it was opened, else validation.

    corrected: the validation score without the luck of the checkpoint's choice, None if nothing was chosen or it is not
    known · several: None if rows have one label each; else `confusion`, `coverage` and `acting` are empty, and
    `classes` are labels.

    lengths and mistakes are None if the data cannot be read again, `cost` if an older version kept none, `stopped` if
    the training came to its own end.
    n_test_reads counts the openings of the test split that are noted in the folder of runs · about_groups: the sentence
    on rows that are not independent of each other, if there are any.
    """

    run: str
    split: Split
    after_selection: bool
    corrected: Score | None
    labels: tuple[str, ...]
    scores: dict[str, dict[str, Score]]
    n_test_reads: int
    about_groups: tuple[str, ...]
    baselines: list[Baseline]
    plan: Plan
    parts: list[Part]
    steps: list[StepRecord]
    evaluations: list[EvalRecord]
    decides: str
    confusion: list[list[int]]
    classes: list[ClassScores]
    several: Several | None
    calibration: Calibration
    coverage: list[RiskCoverage]
    acting: list[Acting]
    lengths: list[LengthBin] | None
    mistakes: list[Mistake] | None
    n_mistakes: int
    data_problem: str | None
    cost: dict[str, Any] | None
    stopped: Stopped | None
    data: dict[str, Any]
    environment: dict[str, Any]
    config: str


def _corrected(run: Run, judged: Predictions) -> Score | None:
    """The validation score without the luck of the checkpoint's choice."""
    noted = run.evaluated(len(judged.ids))
    return None if noted is None or len(noted.right) < 2 else corrected([[noted]], judged.groups)


def read(run: Run, splits: Splits | None = None) -> Report:
    """Return the report of a finished run; `splits` are its rows if they are at hand.

    RunError names what is missing, unfinished, damaged or changed since the run ended.
    """
    runs.verify(runs.load(run.path))
    scores, labels, facts = run.scores(), run.labels(), run.read_json("data.json")
    split: Split = "test" if "test" in scores else "validation"
    predictions = {name: run.load_predictions(name) for name in scores}
    _check(run, predictions, labels, facts)
    judged, records = predictions[split], run.records()
    splits, problem = reread(run, predictions, splits)
    counts = None if judged.has_several else metrics.confusion(judged, len(labels))
    evaluations = run.evaluations()
    plan = planning.from_json((run.path / "plan.json").read_text(encoding="utf-8"))
    return Report(
        run=run.name,
        split=split,
        after_selection=split == "validation" and len(evaluations) > 1,
        corrected=_corrected(run, judged) if split == "validation" else None,
        labels=labels,
        scores=scores,
        n_test_reads=runs.count_test_reads(run.path.parent, facts.get("test_fingerprint") or ""),
        about_groups=metrics.about_groups(judged.groups),
        baselines=baselines.every(facts, labels, splits, split, predictions, run.metric()),
        plan=plan,
        parts=planning.parts(plan),
        steps=[record for record in records if isinstance(record, StepRecord)],
        evaluations=evaluations,
        decides=metrics.deciding_key(run.deciding()),
        confusion=[] if counts is None else counts.tolist(),
        classes=metrics.class_scores(judged),
        several=_several(run, judged, predictions["validation"], labels) if judged.has_several else None,
        calibration=_calibration(judged, scores[split]["ece"]),
        coverage=[] if judged.has_several else metrics.risk_coverage(judged),
        acting=acting.read(predictions["validation"], judged, run.n_choices(predictions["validation"])),
        lengths=None if splits is None else _lengths(getattr(splits, split), judged),
        mistakes=None if splits is None else _mistakes(splits.validation, predictions["validation"], labels),
        n_mistakes=int((~predictions["validation"].right).sum()),
        data_problem=problem,
        cost=run.read_json("cost.json") if (run.path / "cost.json").exists() else None,
        stopped=run.stopped(),
        data=facts,
        environment=run.environment() or {},
        config=(run.path / "config.yaml").read_text(encoding="utf-8"),
    )


def _check(run: Run, predictions: dict[str, Predictions], labels: Sequence[str], facts: dict[str, Any]) -> None:
    """Refuse files that do not belong together: a page made from them would be wrong without looking wrong."""
    problems = [] if "validation" in predictions else [f"{run.path / 'scores.json'} has no validation scores"]
    if not isinstance(facts.get("classes"), dict) or set(facts["classes"].get("train", ())) != set(labels):
        problems.append(f"{run.path / 'data.json'} and labels.json name different classes")
    if problems:
        raise RunError(*(f"{problem}: restore the run, or train again" for problem in problems))


def reread(
    run: Run, predictions: dict[str, Predictions], splits: Splits | None = None
) -> tuple[Splits | None, str | None]:
    """Return the rows of the run's saved predictions, or None and why they cannot be read."""
    settings, fingerprint = run.config().data, run.read_json("data.json").get("fingerprint")
    try:
        splits = splits or data.read(settings)
    except SubmillionError as error:
        return None, f"the run's data cannot be read again: {error.problems[0]}"
    ids = {name: [example.id for example in getattr(splits, name)] for name in predictions}
    if splits.fingerprint != fingerprint or any(ids[name] != own.ids for name, own in predictions.items()):
        both = f"its fingerprint is {splits.fingerprint[:8]}, and was {str(fingerprint)[:8]}"
        return None, f"{settings.source} is not what the run was trained on: {both}"
    return splits, None


def _several(run: Run, judged: Predictions, validation: Predictions, labels: Sequence[str]) -> Several:
    how, few = run.config().train.threshold, thresholds.few_positives(validation.label_ids)
    of_run = run.thresholds()
    assert of_run is not None, "a run whose rows have several labels keeps their thresholds"
    return Several(
        thresholds=tuple(of_run.tolist()),
        how=str(how),
        n_validation=len(validation.ids),
        few=tuple(str(labels[label_id]) for label_id in few.tolist()) if how == "each" else (),
        precisions=metrics.label_precisions(judged),
        together=metrics.together(judged.truth).tolist(),
        n_true=np.bincount(judged.truth.sum(axis=1)).tolist(),
        n_predicted=np.bincount(judged.predicted.sum(axis=1)).tolist(),
    )


def _calibration(judged: Predictions, ece_before: Score) -> Calibration:
    scaled = metrics.calibrated(judged)
    return Calibration(
        before=metrics.reliability(judged),
        after=metrics.reliability(scaled.predictions),
        ece_before=ece_before,
        ece_after=metrics.ece(scaled.predictions),
        temperatures=scaled.temperatures,
        gap=metrics.confidence_gap(judged),
        ece_change=metrics.ece_change(judged, scaled.predictions),
    )


def _lengths(examples: Sequence[Example], judged: Predictions) -> list[LengthBin]:
    """Accuracy over bins of about as many rows each; texts of one length are in one bin."""
    lengths = np.array([count(example.text) + count(example.text_pair) for example in examples])
    right = judged.right
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _N_LENGTH_BINS + 1)[1:], method="higher"))
    bins = np.searchsorted(edges, lengths)
    members = [bins == number for number in np.unique(bins)]
    return [
        LengthBin(
            n_least=int(lengths[m].min()),
            n_most=int(lengths[m].max()),
            accuracy=metrics.share(right, judged.groups, m),
            worth=_worth(right, judged.groups, m),
        )
        for m in members
    ]


def _worth(right: np.ndarray, groups: np.ndarray | None, members: np.ndarray) -> float:
    own = None if groups is None else metrics.numbered(groups[members])
    return metrics.effective_rows(right[members] - right[members].mean(), own)


def _mistakes(examples: Sequence[Example], predictions: Predictions, labels: Sequence[str]) -> list[Mistake]:
    """The run's surest mistakes on validation rows. Test texts stay unread: labels get corrected and settings changed
    after such a list, and a test that was read for it is no test any more."""
    if predictions.has_several:
        return _surest_decisions(examples, predictions, labels)
    confidence, predicted = predictions.probs.max(axis=1), predictions.predicted
    return [
        Mistake(
            id=examples[row].id,
            text=_text(examples[row]),
            label=labels[int(predictions.label_ids[row])],
            predicted=labels[int(predicted[row])],
            confidence=float(confidence[row]),
        )
        for row in _surest(predictions, confidence)
    ]


def _surest(predictions: Predictions, confidence: np.ndarray) -> list[int]:
    """The rows that are wrong, the surest first, at most `N_MISTAKES`."""
    wrong = np.flatnonzero(~predictions.right)
    return sorted(wrong.tolist(), key=lambda row: (-confidence[row], predictions.ids[row]))[:N_MISTAKES]


def _surest_decisions(examples: Sequence[Example], predictions: Predictions, labels: Sequence[str]) -> list[Mistake]:
    """The same for rows with several labels: a row is as sure as its surest wrong decision."""
    truth, predicted = predictions.truth, predictions.predicted
    confidence = np.where(truth == predicted, 0.0, np.where(predicted, predictions.probs, 1 - predictions.probs))
    surest = confidence.argmax(axis=1)

    def named(of_row: np.ndarray) -> tuple[str, ...]:
        return tuple(labels[label_id] for label_id in np.flatnonzero(of_row).tolist())

    return [
        Mistake(
            id=examples[row].id,
            text=_text(examples[row]),
            label=named(truth[row]),
            predicted=named(predicted[row]),
            confidence=float(confidence[row, surest[row]]),
            wrong=labels[int(surest[row])],
        )
        for row in _surest(predictions, confidence.max(axis=1))
    ]


def _text(example: Example) -> str:
    return " ⏐ ".join(filter(None, (example.text, example.text_pair)))
