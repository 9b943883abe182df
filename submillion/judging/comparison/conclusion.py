"""From settings with predictions to what may be said: scores, tests against the best, the tie group, what to take.

Owns the family of tests that is corrected, and the words of caution. Where predictions come from is left to others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import special

from submillion.config import Metric
from submillion.errors import DataError
from submillion.judging import metrics
from submillion.judging.comparison import bootstrap
from submillion.judging.comparison.best import may_be_best
from submillion.judging.comparison.bootstrap import Resampled, resample
from submillion.judging.comparison.choice import Noted, corrected
from submillion.judging.comparison.paired import LEVEL, Difference, holm, mcnemar
from submillion.judging.comparison.rows import OF_PROPORTION, POINTS, rows_needed
from submillion.judging.comparison.verdict import Needed, Pair, RowsNeeded, Split, Standing, Tested, Verdict
from submillion.judging.metrics import Predictions, Scaling, Score

_OF_ROWS = ("accuracy", "subset_accuracy")  # shares of rows that are right: two runs' are tested exactly
_SHARES = (*_OF_ROWS, "hamming")  # all that Wilson's interval is for
_DIGITS = 5  # of what decides: temperatures are fitted to about as many
_FEWEST_DOF = 2  # with one, Student's quantile is 12.7: it would say nothing


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in their seed alone; name is unique within a comparison.

    runs, keys, named_by, n_params, training_s: as in `Standing` · predictions: one a run, of the same rows in
    the same order · n_evaluations: the most that a run's checkpoint was chosen from · evaluations: what these noted of
    the predictions' rows, in their order, for each run; None if that is not known.
    """

    name: str
    runs: tuple[str, ...]
    predictions: tuple[Predictions, ...]
    n_params: int
    training_s: float
    n_evaluations: int
    evaluations: tuple[Noted, ...] | None = None
    keys: Mapping[str, str] = field(default_factory=dict, hash=False)
    named_by: Literal["keys", "run"] = "keys"


def conclude(
    settings: Sequence[Setting],
    split: Split = "validation",
    metric: Metric = "accuracy",
    margin: float | None = None,
    decide: Metric = "log-loss",
) -> Verdict:
    """Return what may be said of the settings; DataError with fewer than two rows or broken probabilities.

    decide: the metric that decides which is the best and what is tied with it; log-loss is the scaled one, which mostly
    takes fewer rows (docs/comparison.md). `metric` is reported first: a setting that its own test calls worse than the
    best is not recommended. All are tested, each metric a family of its own. The family is all pairs, not those with
    the best alone: the best was picked by its scores, so any pair might have been the one tested.
    margin: the recommended setting is the cheapest that is at most so much worse than the best, by `metric`; None takes
    the cheapest of those that are tied with it.
    """
    n_rows = len(settings[0].predictions[0].ids)
    if n_rows < 2:
        raise DataError(f"the {split} split has {n_rows} row: a comparison needs at least two")
    key, deciding = metrics.key_of(metric), metrics.deciding_key(decide)
    scored_by = dict.fromkeys((metric, metric if decide == "log-loss" else decide))  # the scaled one is always there
    scaled = [[metrics.tempered(run) for run in setting.predictions] for setting in settings]
    resampled = bootstrap.borrowing(
        [resample(setting.predictions, metric, each, decide) for setting, each in zip(settings, scaled, strict=True)]
    )
    scored = list(zip(settings, resampled, strict=True))
    scores = {
        setting.name: _scores(setting, cool, resampled, tuple(scored_by))
        for (setting, resampled), cool in zip(scored, scaled, strict=True)
    }
    heights = {name: round(metrics.height(deciding, each[deciding].value), _DIGITS) for name, each in scores.items()}
    losses = {name: each["log_loss"].value for name, each in scores.items()}
    scored.sort(key=lambda each: (-heights[each[0].name], losses[each[0].name], each[0].n_params, each[0].name))
    ordered = tuple(setting for setting, _ in scored)
    pairs = _against_best(ordered, [resampled for _, resampled in scored], deciding)
    group = (ordered[0], *(setting for setting, pair in zip(ordered[1:], pairs, strict=True) if pair.is_tied))
    return Verdict(
        split=split,
        n_rows=n_rows,
        settings=tuple(_standing(setting, scores[setting.name], split) for setting in ordered),
        pairs=pairs,
        group=tuple(setting.name for setting in group),
        may_be_best=_may_be_best(scored, deciding),
        recommended=_recommended(ordered, pairs, losses, key, margin) if split == "validation" else None,
        notes=(
            *_disagreements(pairs, key, deciding),
            *_notes(ordered, pairs, split),
            *_seeds_note([each[key] for _, each in scored], key),
        ),
        metric=key,
        decides=deciding if deciding != key else None,
        rows_needed=_rows_needed(scored[:2], pairs[0], n_rows, key) if pairs and pairs[0].is_tied else (),
        margin=margin,
        corrected=_corrected(ordered) if split == "validation" else None,
    )


def _may_be_best(scored: Sequence[tuple[Setting, dict[str, Resampled]]], deciding: str) -> tuple[str, ...]:
    """Return the names of the settings among which the best is; none for two, whose own test says as much."""
    if len(scored) < 3:
        return ()
    sign = -1.0 if deciding in metrics.LOSSES else 1.0
    kept = may_be_best([resampled[deciding] for _, resampled in scored], sign)
    return tuple(setting.name for (setting, _), is_kept in zip(scored, kept, strict=True) if is_kept)


def _corrected(settings: Sequence[Setting]) -> Score | None:
    """Return the best score without the luck of its choice; None if nothing was chosen, or from what was not noted."""
    noted = [setting.evaluations for setting in settings if setting.evaluations is not None]
    if len(noted) < len(settings) or sum(len(run.right) for runs in noted for run in runs) < 2:
        return None
    return corrected(noted, settings[0].predictions[0].groups)


def _recommended(
    settings: Sequence[Setting], pairs: Sequence[Pair], losses: Mapping[str, float], key: str, margin: float | None
) -> str:
    """Return the cheapest allowed setting: the fewest parameters, then the lowest log loss. Times differ from day to
    day, and decide nothing."""
    may_be = [
        pair.is_tied and pair.told(key) != "worse" if margin is None else pair.most_lost(key) <= margin
        for pair in pairs
    ]
    allowed = [settings[0], *(setting for setting, may in zip(settings[1:], may_be, strict=True) if may)]
    return min(allowed, key=lambda setting: (setting.n_params, losses[setting.name], setting.name)).name


def _standing(setting: Setting, scores: dict[str, Score], split: Split) -> Standing:
    return Standing(
        name=setting.name,
        keys=dict(setting.keys),
        named_by=setting.named_by,
        runs=setting.runs,
        n_seeds=len(setting.runs),
        scores=scores,
        after_selection=split == "validation" and setting.n_evaluations > 1,
        n_params=setting.n_params,
        training_s=setting.training_s,
        corrected=_corrected([setting]) if split == "validation" and setting.n_evaluations > 1 else None,
    )


def _scores(
    setting: Setting, scaled: Sequence[Scaling], resampled: dict[str, Resampled], shown: Sequence[Metric]
) -> dict[str, Score]:
    """Return one run's own scores; of several the means, with intervals over seeds and rows."""
    single = [
        {key: score for metric in shown for key, score in metrics.score_by(predictions, metric).items()}
        | {"scaled_log_loss": metrics.log_loss(cool.predictions)}
        for predictions, cool in zip(setting.predictions, scaled, strict=True)
    ]
    if len(single) == 1:
        return {key: single[0][key] for key in resampled}
    of_rows = next(key for key in _OF_ROWS if key in resampled)
    least = metrics.effective_rows(np.zeros(single[0][of_rows].n), setting.predictions[0].groups)
    share = _mean_share(resampled[of_rows], single[0][of_rows].n, least)
    means = {}
    for key, values in resampled.items():
        of_runs = [scores[key] for scores in single]
        if key in _SHARES:
            means[key] = _mean_share(values, of_runs[0].n, least)
        else:
            means[key] = _mean_score(key, values, of_runs, _narrower(share, [scores[of_rows] for scores in single]))
    return means


def _mean_share(resampled: Resampled, n_rows: int, least: float) -> Score:
    """Return a mean share of rows over seeds, with Wilson's interval at the effective number of rows, that of
    independent rows with the variance that seeds and rows show: near 1 the mean plus or minus its error would be far
    too narrow (of 30 rows at 0.99 it covered the truth in 42 % of simulations, and this one in 97 %).
    least: how many rows these are worth if nothing varies."""
    value, spread = float(resampled.values.mean()), bootstrap.spread_of(n_rows, resampled)
    n, is_edge = least, value in (0.0, 1.0)
    if spread.error > 0:
        # All right, and yet a spread, lent by other settings' seeds: four more rows, two of them right, give a share.
        share = (value * least + 2) / (least + 4) if is_edge else value
        n = min(share * (1 - share) / spread.error**2, least if is_edge else math.inf)
    return Score(value, *metrics.wilson_ends(value, n, spread.quantile), n_rows)


def _narrower(mean: Score, of_runs: Sequence[Score]) -> float:
    """Return how much narrower the interval of a mean share is than its runs' are on average, at most 1."""
    widths = sum(score.high - score.low for score in of_runs) / len(of_runs)
    return min((mean.high - mean.low) / widths, 1.0)


def _mean_score(key: str, resampled: Resampled, of_runs: Sequence[Score], narrower: float) -> Score:
    """Return a mean over seeds, with Student's interval, at least as wide as its runs' own on average, narrowed as the
    seeds narrow that of the share of right rows. Runs with few mistakes show too little spread, which their own
    intervals allow for."""
    n_rows = of_runs[0].n
    value, spread = float(resampled.values.mean()), bootstrap.spread_of(n_rows, resampled)
    below = narrower * sum(score.value - score.low for score in of_runs) / len(of_runs)
    above = narrower * sum(score.high - score.value for score in of_runs) / len(of_runs)
    least, most = -1.0 if key == "mcc" else 0.0, math.inf if key in metrics.LOSSES else 1.0
    low, high = value - max(spread.half, below), value + max(spread.half, above)
    return Score(value, max(low, least), min(high, most), n_rows)


def _against_best(
    settings: Sequence[Setting], resampled: Sequence[dict[str, Resampled]], deciding: str
) -> tuple[Pair, ...]:
    """Test all pairs, correct them together, return those with the first setting."""
    keys = tuple(resampled[0])
    numbers = list(combinations(range(len(settings)), 2))
    tests = [
        {metric: _difference(metric, settings[j], settings[i], resampled[j], resampled[i]) for metric in keys}
        for i, j in numbers
    ]
    corrected = {metric: holm(np.array([test[metric].p for test in tests])) for metric in keys}
    return tuple(
        Pair(
            setting=settings[j].name,
            about="settings" if min(len(settings[0].runs), len(settings[j].runs)) > 1 else "runs",
            is_tied=bool(corrected[deciding][k] > LEVEL),
            differences={
                metric: Tested(**vars(tests[k][metric]), p_holm=float(corrected[metric][k])) for metric in keys
            },
        )
        for k, (i, j) in enumerate(numbers)
        if i == 0
    )


def _difference(metric: str, first: Setting, second: Setting, *resampled: dict[str, Resampled]) -> Difference:
    is_exact = metric in _OF_ROWS and not any(each.predictions[0].has_own_thresholds for each in (first, second))
    if is_exact and len(first.runs) == len(second.runs) == 1:
        return mcnemar(_right(first)[0], _right(second)[0], first.predictions[0].groups)
    return bootstrap.difference(*(each[metric] for each in resampled), n_rows=len(first.predictions[0].ids))


def _right(setting: Setting) -> np.ndarray:
    """Return which rows each run has right, bool [S, B]."""
    return np.stack([predictions.right for predictions in setting.predictions])


def _rows_needed(
    best: Sequence[tuple[Setting, dict[str, Resampled]]], pair: Pair, n_rows: int, key: str
) -> tuple[RowsNeeded, ...]:
    """Return what separates the two best, by the size of their difference: assumed ones, the one seen, the largest."""
    difference, losses = pair.differences[key], pair.differences["scaled_log_loss"]
    agree = metrics.height(key, difference.value) * metrics.height("log_loss", losses.value) > 0
    # The log loss per error, of both together: the two are assumed to differ nearly in proportion.
    errors = sum(1 - float(of_setting[key].values.mean()) for _, of_setting in best)
    per_error = sum(float(each["scaled_log_loss"].values.mean()) for _, each in best) / errors if errors > 0 else 0.0
    per_error *= OF_PROPORTION
    if key in metrics.LOSSES:
        per_error = 1.0
    sizes: list[tuple[float, Literal["assumed", "seen", "largest"], float]] = [
        (points / 100, "assumed", points / 100 * per_error) for points in POINTS if key not in metrics.LOSSES
    ]
    largest = max(abs(difference.low), abs(difference.high))
    if difference.value != 0:
        sizes.append((abs(difference.value), "seen", abs(losses.value) if agree else 0.0))
    sizes.append((largest, "largest", largest * per_error))
    return tuple(
        RowsNeeded(
            difference=size,
            basis=basis,
            by_score=_needed(best, pair, n_rows, key, size),
            by_log_loss=_needed(best, pair, n_rows, "scaled_log_loss", of_loss),
        )
        for size, basis, of_loss in sorted(sizes)
    )


def _needed(
    best: Sequence[tuple[Setting, dict[str, Resampled]]], pair: Pair, n_rows: int, key: str, size: float
) -> Needed | None:
    (one, of_one), (other, of_other) = best
    has_own = any(setting.predictions[0].has_own_thresholds for setting in (one, other))
    if pair.about == "runs" and key in _OF_ROWS and not has_own:
        of_rows = one.predictions[0].summed(_right(one).mean(axis=0) - _right(other).mean(axis=0))
        n = rows_needed(size, float((of_rows**2).sum()) / n_rows)
        return None if n is None else Needed(n, 1)
    n_seeds = min(len(one.runs), len(other.runs))
    spread = bootstrap.spread_of(n_rows, of_one[key], of_other[key])
    # A difference comes from rows that usually differ by one each (error, or nat). So a difference of so many points
    # takes at least so many rows, and runs that are nearly the same do not promise it on a few rows.
    spread = replace(spread, rows=max(spread.rows, size / n_rows))
    return bootstrap.rows_and_seeds_needed(size, spread, n_seeds)


def _disagreements(pairs: Sequence[Pair], key: str, deciding: str) -> list[str]:
    """Return notes on pairs of which two tests say different things."""
    score, decider = metrics.NAMES[key], metrics.NAMES[deciding]
    notes = []
    if names := [pair.setting for pair in pairs if not pair.is_tied and pair.told(key) == "better"]:
        notes.append(f"contradiction: worse by {decider}, but better by {score}: {'; '.join(names)}")
    if names := [pair.setting for pair in pairs if pair.is_tied and pair.told(key) is not None]:
        notes.append(f"tied by {decider}, told apart by {score} alone: {'; '.join(names)}")
    return notes


def _seeds_note(resampled: Sequence[Resampled], key: str) -> list[str]:
    """Return a note on how far apart seeds alone put two runs, if some settings have one seed and others several."""
    several = [each.values for each in resampled if len(each.values) > 1]
    n_dof = sum(len(values) - 1 for values in several)
    if n_dof < _FEWEST_DOF or len(several) == len(resampled):
        return []
    spread = math.sqrt(sum(float(((values - values.mean()) ** 2).sum()) for values in several) / n_dof)
    apart = float(special.stdtrit(n_dof, 1 - LEVEL / 2)) * math.sqrt(2) * spread
    factor, unit = (1, "") if key in metrics.LOSSES else (100, " points")
    return [
        f"seeds alone move {metrics.NAMES[key]} by {factor * spread:.2g}{unit} (standard deviation within settings "
        f"that have several): runs of two equal settings are up to {factor * apart:.2g}{unit} apart in 95 of 100 cases"
    ]


def _notes(settings: Sequence[Setting], pairs: Sequence[Pair], split: Split) -> tuple[str, ...]:
    """Return what a reader must know before believing the numbers."""
    notes = []
    fewest = min(len(setting.runs) for setting in settings)
    if {pair.about for pair in pairs} == {"runs", "settings"}:
        alone = sum(len(setting.runs) == 1 for setting in settings)
        notes.append(
            f"{alone} of the {len(settings)} settings {'has' if alone == 1 else 'have'} one seed: "
            "a test against one of these is about its runs, not about the setting"
        )
    elif any(pair.about == "runs" for pair in pairs):
        which = "these two runs" if sum(len(setting.runs) for setting in settings) == 2 else "these runs"
        notes.append(
            f"with one seed, a test is about {which}, not about their settings; "
            "runs with other values of train.seed make it one about settings"
        )
    elif pairs and fewest == 2:
        notes.append("with two seeds only large differences can be seen: three or more tell much more")
    notes += metrics.about_groups(settings[0].predictions[0].groups)
    if not pairs:
        notes.append("these runs are one setting: there is nothing to compare it with")
    most, least = (pick(setting.n_evaluations for setting in settings) for pick in (max, min))
    if split == "validation" and most > least:
        notes.append(
            f"checkpoints were chosen among {least} to {most} evaluations: more choices favour a setting here, and the "
            "p values do not account for it; use the corrected scores, or train with the same train.evaluate_every"
        )
    if split == "validation" and pairs:
        notes.append("the best of several validation scores is optimistic: expect less on new rows")
    if split == "test":
        notes.append("nothing is recommended on the test split: choose on validation, or test is no longer a test")
    return tuple(notes)
