"""From run folders to settings: which runs may be compared, which of them differ only in their seed, and their names.

Owns the refusals and the note in `test-reads.jsonl`. What the comparison says is left to `conclusion`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np

from submillion import runs
from submillion.config import NOT_HASHED, Metric, as_text, flat
from submillion.errors import RunError, SubmillionError
from submillion.judging.comparison import Noted, Setting, Split, Verdict, conclude
from submillion.judging.metrics import Predictions, allowed_metrics, in_same_groups, usual_metric
from submillion.runs import EvalRecord, Run, Which
from submillion.text import a_kind, did_you_mean, shown

_MOST_KEYS = 6  # in a setting's name
_N_IDS = 3  # differing ids that an error names
_DATA = "data.fingerprint"
_COLUMNS = ("data.text", "data.text_pair")


@dataclass(frozen=True)
class _Facts:
    """What a run's folder says: every key with its value as text, and what else decides which runs it matches."""

    run: Run
    keys: dict[str, str]
    seed: int
    metric: Metric
    decide: Metric | None  # as its settings name it
    labels: tuple[str, ...]
    has_several: bool  # labels per row
    content: str | None  # fingerprint of the split's rows; None in older folders
    n_params: int
    training_s: float
    evaluations: tuple[EvalRecord, ...]


_Member = tuple[_Facts, Predictions, Noted | None]


def compare(
    paths: Sequence[Which],
    split: Split = "validation",
    out: Path | str = "runs",
    margin: float | None = None,
    decide: Metric | None = None,
) -> Verdict:
    """Return the comparison of finished runs; see `reports.comparing.compare`, which also writes the page."""
    if not isinstance(paths, list | tuple):
        raise RunError(f"{a_kind(paths)} is given: a comparison takes runs in a list, such as compare([run, other])")
    if split not in get_args(Split):
        raise RunError(f"split is {shown(split)}: {did_you_mean(str(split), get_args(Split))}")
    if len(paths) < 2:
        raise RunError(f"{len(paths)} run given: a comparison needs at least two")
    if margin is not None and not 0 <= margin < 1:
        raise RunError(
            f"margin is {margin:g}: give a difference of scores from 0, below 1, such as 0.005 for half a point"
        )
    facts = _read_all(paths, split, out)
    _refuse_copies(facts)
    _refuse_unknown_metric(decide, facts[0].has_several)
    _refuse_other_data(facts, split)
    if split == "test":
        for fact in facts:
            runs.append_test_read(fact.run.path.parent, str(fact.content), fact.run, "compare")
    saved = [fact.run.load_predictions(split) for fact in facts]
    predictions = [of_run.rows(_by_id(of_run)) for of_run in saved]
    _refuse_other_rows(facts, predictions, split)
    predictions = in_same_groups(predictions)
    metric, notes = _metric(facts)
    decide_asked, decide = decide, decide or _deciding(facts)
    evaluations: list[Noted | None] = [None] * len(facts)  # none on test, which chose nothing
    if split == "validation":
        noted = [fact.run.evaluated(len(of_run.ids), metric, decide) for fact, of_run in zip(facts, saved, strict=True)]
        evaluations = [
            None if each is None else each.rows(_by_id(of_run)) for each, of_run in zip(noted, saved, strict=True)
        ]
    verdict = conclude(_settings(facts, predictions, evaluations), split, metric, margin, decide)
    named = dict.fromkeys(fact.decide for fact in facts)
    if decide_asked is None and len(named) > 1:
        names = ", ".join(name or "none" for name in named)
        notes = (*notes, f"runs name different scores that decide ({names}): scaled log loss decides here")
    verdict = replace(verdict, notes=(*verdict.notes, *notes))
    return replace(verdict, notes=(*verdict.notes, _openings(facts))) if split == "test" else verdict


def _refuse_unknown_metric(decide: Metric | None, has_several: bool) -> None:
    allowed = allowed_metrics(has_several)
    if decide is not None and decide not in allowed:
        rows = "several labels" if has_several else "one label"
        raise RunError(f"decide is {shown(decide)}, but rows have {rows}: {did_you_mean(str(decide), allowed)}")


def _deciding(facts: Sequence[_Facts]) -> Metric:
    """The score that decides: the one that all runs' settings name, else scaled log loss."""
    first = facts[0].decide
    return first if first is not None and all(fact.decide == first for fact in facts) else "log-loss"


def _metric(facts: Sequence[_Facts]) -> tuple[Metric, tuple[str, ...]]:
    """The score to report first, that of all runs, and a note if they have several."""
    metrics: list[Metric] = list(dict.fromkeys(fact.metric for fact in facts))
    if len(metrics) == 1:
        return metrics[0], ()
    names, usual = ", ".join(metrics), usual_metric(facts[0].has_several)
    return usual, (f"runs report different scores ({names}, train.metric): {usual} is reported here",)


def _openings(facts: Sequence[_Facts]) -> str:
    places = {(fact.run.path.parent, str(fact.content)) for fact in facts}
    n_reads = sum(runs.count_test_reads(*place) for place in places)
    return f"these test rows were opened {runs.times(n_reads)} so far, this time included: a test is fresh only once"


def _read_all(paths: Sequence[Which], split: Split, out: Path | str) -> list[_Facts]:
    facts, problems = [], []
    for path in paths:
        try:
            facts.append(_facts(runs.load(path, out), split))
        except SubmillionError as error:
            problems += error.problems
    if problems:
        raise RunError(*problems)
    return facts


def _facts(run: Run, split: Split) -> _Facts:
    runs.verify(run)
    config, data, records = run.config(), run.read_json("data.json"), run.records()
    if not records:
        raise RunError(f"{run.path / 'metrics.jsonl'} is missing or empty: restore it, or train again")
    if not isinstance(data.get("fingerprint"), str):
        raise RunError(f"{run.path / 'data.json'} is damaged: it has no fingerprint; restore it, or train again")
    if split == "test" and data.get("test_fingerprint") is None:
        raise RunError(f"{run.path} has no test split: it was trained without one; compare on validation")
    keys = flat(config.model_dump(mode="json", exclude=set(NOT_HASHED))) | {_DATA: data["fingerprint"][:8]}
    del keys["train.seed"]
    train = config.train
    keys |= {"train.metric": run.metric(), "train.decide": run.deciding()}  # null means these too
    environment = run.environment() or {}  # it says what a precision of null became; a folder's weights may change
    stopped = run.stopped()  # then it trained fewer steps than its config says
    keys["stopped_after_step"] = as_text(None if stopped is None else stopped.step)
    keys |= {f"environment.{key}": as_text(environment.get(key)) for key in ("precision", "encoder_sha256")}
    return _Facts(
        run=run,
        keys=keys,
        seed=config.train.seed,
        metric=run.metric(),
        decide=train.decide or train.metric,
        labels=run.labels(),
        has_several=run.has_several(),
        content=data.get(f"{split}_fingerprint"),
        n_params=run.read_json("plan.json")["total"],
        training_s=sum(record.seconds for record in records),
        evaluations=tuple(run.evaluations()),
    )


def _refuse_copies(facts: Sequence[_Facts]) -> None:
    """Refuse a run that is given twice: counted twice, it would pass for two seeds."""
    seen: dict[tuple[object, ...], _Facts] = {}
    problems = []
    for fact in facts:
        other = seen.setdefault((fact.seed, *sorted(fact.keys.items())), fact)
        if other is not fact:
            what = "is given twice" if other.run.path.resolve() == fact.run.path.resolve() else "is a copy"
            problems.append(
                f"{fact.run.path} {what}: {other.run.path} has the same settings and seed; give one of them"
            )
    if problems:
        raise RunError(*problems)


def _refuse_other_data(facts: Sequence[_Facts], split: Split) -> None:
    """The labels must agree; texts too, unless they were made from other columns of the rows."""
    first, problems = facts[0], []
    for fact in facts[1:]:
        same_columns = all(fact.keys[key] == first.keys[key] for key in _COLUMNS)
        if fact.has_several != first.has_several:
            one, several = (first, fact) if fact.has_several else (fact, first)
            problems.append(
                f"rows have one label each in {one.run.path}, and several in {several.run.path}: their scores are "
                "not comparable; compare runs of one task"
            )
        elif fact.labels != first.labels:
            labels = " and ".join(", ".join(each.labels[:20]) for each in (first, fact))
            problems.append(
                f"{first.run.path} and {fact.run.path} have different labels: {labels}; compare runs of one task"
            )
        elif same_columns and None not in (fact.content, first.content) and fact.content != first.content:
            problems.append(
                f"{first.run.path} and {fact.run.path} have different {split} rows: fingerprints "
                f"{str(first.content)[:8]} and {str(fact.content)[:8]}; compare runs with the same data.validation, "
                "data.test and data.seed"
            )
    if problems:
        raise RunError(*problems)


def _by_id(predictions: Predictions) -> np.ndarray:
    """The indices that sort the rows by id, int64 [B]."""
    return np.array(sorted(range(len(predictions.ids)), key=predictions.ids.__getitem__))


def _refuse_other_rows(facts: Sequence[_Facts], predictions: Sequence[Predictions], split: Split) -> None:
    first, problems = predictions[0], []
    for fact, own in zip(facts[1:], predictions[1:], strict=True):
        both = f"{facts[0].run.path} and {fact.run.path}"
        if own.ids != first.ids:
            other = sorted(set(own.ids) ^ set(first.ids))
            ids = ", ".join(other[:_N_IDS])
            problems.append(
                f"{both} have different {split} rows: {len(first.ids):,} and {len(own.ids):,}, of which "
                f"{len(other):,} are in only one (ids {ids}{', …' if len(other) > _N_IDS else ''}); compare runs on "
                "the same rows"
            )
        elif (own.label_ids != first.label_ids).any():
            row = int(np.argmax((own.label_ids != first.label_ids).reshape(len(first.ids), -1).any(axis=1)))
            problems.append(
                f"{both} have different labels for {split} row {first.ids[row]}: they are not the same rows"
            )
    if problems:
        raise RunError(*problems)


def _settings(
    facts: Sequence[_Facts], predictions: Sequence[Predictions], evaluations: Sequence[Noted | None]
) -> list[Setting]:
    """Group runs by everything but their seed; within a setting by seed, whatever the order they were given in."""
    groups: dict[tuple[tuple[str, str], ...], list[_Member]] = defaultdict(list)
    for member in zip(facts, predictions, evaluations, strict=True):
        groups[tuple(sorted(member[0].keys.items()))].append(member)
    differing = _differing([dict(key) for key in groups])
    is_short = 0 < max(map(len, differing)) <= _MOST_KEYS
    return [
        _setting(sorted(members, key=lambda member: member[0].seed), keys, is_short)
        for members, keys in zip(groups.values(), differing, strict=True)
    ]


def _setting(members: Sequence[_Member], keys: dict[str, str], is_short: bool) -> Setting:
    """A setting, named by its keys if they are few enough to be read."""
    facts = [fact for fact, _, _ in members]
    evaluations = tuple(each for _, _, each in members if each is not None)
    return Setting(
        name=", ".join(f"{key}={value}" for key, value in keys.items()) if is_short else facts[0].run.name,
        runs=tuple(fact.run.name for fact in facts),
        predictions=tuple(predictions for _, predictions, _ in members),
        n_params=facts[0].n_params,
        training_s=sum(fact.training_s for fact in facts) / len(facts),
        n_evaluations=max(len(fact.evaluations) for fact in facts),
        evaluations=evaluations if len(evaluations) == len(members) else None,
        keys=keys,
        named_by="keys" if is_short else "run",
    )


def _differing(settings: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Each setting's values of the keys that differ between settings; the data's key only if no other tells two of
    them apart."""
    every = list(dict.fromkeys(key for keys in settings for key in keys))
    differing = [key for key in every if any(a.get(key) != b.get(key) for a, b in pairwise(settings))]
    without_data = [{key: keys[key] for key in differing if key in keys and key != _DATA} for keys in settings]
    if len({tuple(keys.items()) for keys in without_data}) == len(without_data):
        return without_data
    return [{key: keys[key] for key in differing if key in keys} for keys in settings]
