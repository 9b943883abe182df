"""Settings over rows and seeds: their metrics on resampled rows, and the spread of a mean or difference over both.

The paired bootstrap (Efron and Tibshirani 1993, chapter 8): its draws depend on the number of rows alone, so all runs
share them and every comparison can be repeated to the bit. Rows are drawn anew for all runs in common, seeds
within each setting (Bouthillier et al. 2021, "Accounting for Variance in Machine Learning Benchmarks"; Dror et al.
2018, "The Hitchhiker's Guide to Testing Statistical Significance in NLP"). Shapes: B rows, C classes, S seeds.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import special

from submillion.config import Metric
from submillion.judging.comparison.paired import Difference
from submillion.judging.comparison.rows import Z_POWER
from submillion.judging.comparison.seeds import Moderated, moderated
from submillion.judging.comparison.verdict import Needed
from submillion.judging.metrics import (
    Z_95,
    Predictions,
    Scaling,
    correlation,
    deciding_key,
    key_of,
    mean_f1,
    precision_parts,
    row_losses,
    scores_of_several,
    temperature_variance,
    tempered,
)
from submillion.judging.metrics.thresholds import N_FOLDS, folds_of

# Always tested, for rows with one label, and with several.
METRICS = ("accuracy", "macro_f1", "log_loss", "scaled_log_loss")
OF_SEVERAL = ("micro_f1", "macro_f1", "hamming", "subset_accuracy", "log_loss", "scaled_log_loss")

_N_DRAWS, _DRAW_SEED = 1000, 20251
_BLOCK = 100  # draws that are floats at a time
_SIZES = [1, *np.unique(np.geomspace(2, 10**9, 220).astype(np.int64)).tolist()]
_MORE_SEEDS = (5, 10, 20, 50)  # of each setting, that are tried if the existing ones hide a difference


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric of a setting's runs: values [S] on the rows themselves, draws [S, 1000] on resampled ones; by_chance
    [S], the variance that comes from thresholds and temperatures that were fitted to these rows, None if none were;
    moderated: the seeds' variance, moderated by other settings', None if it is this setting's own; n_groups: that were
    drawn instead of rows, None if each row is alone."""

    values: np.ndarray
    draws: np.ndarray
    by_chance: np.ndarray | None = None
    moderated: Moderated | None = None
    n_groups: int | None = None


def tested(metric: Metric, has_several: bool, decide: Metric) -> tuple[str, ...]:
    """Return the keys of the scores that are tested: first that of `metric`, last those that decide alone."""
    return tuple(dict.fromkeys((key_of(metric), *(OF_SEVERAL if has_several else METRICS), deciding_key(decide))))


def resample(
    predictions: Sequence[Predictions],
    metric: Metric = "accuracy",
    scaled: Sequence[Scaling] | None = None,
    decide: Metric = "log-loss",
) -> dict[str, Resampled]:
    """Return each metric of the runs of one setting, all on the same rows in the same order; scaled: the runs,
    `tempered`, if that is done."""
    has_several = predictions[0].has_several
    scaled = scaled or [tempered(run) for run in predictions]
    losses = [
        np.column_stack([row_losses(run), row_losses(cool.predictions)])
        for run, cool in zip(predictions, scaled, strict=True)
    ]
    of_run, with_precision = _of_several if has_several else _metrics, "average-precision" in (metric, decide)
    run_metrics = [of_run(run, with_precision, of_rows) for run, of_rows in zip(predictions, losses, strict=True)]
    stacked = {key: np.stack([values[key] for values in run_metrics]) for key in tested(metric, has_several, decide)}
    groups = predictions[0].groups
    n_groups = None if groups is None else int(groups.max()) + 1
    by_chance: dict[str, np.ndarray] = {}
    if any(run.has_own_thresholds for run in predictions):
        of_runs = [_of_thresholds(run) for run in predictions]
        by_chance = {key: np.array([variances.get(key, 0.0) for variances in of_runs]) for key in stacked}
    by_chance["scaled_log_loss"] = np.array(
        [temperature_variance(run, cool.temperatures) for run, cool in zip(predictions, scaled, strict=True)]
    )
    return {
        key: Resampled(values[:, 0], values[:, 1:], by_chance.get(key), n_groups=n_groups)
        for key, values in stacked.items()
    }


def _of_thresholds(predictions: Predictions) -> dict[str, float]:
    """Return each metric's variance that comes from the chosen thresholds, by the delete-a-group jackknife: the folds'
    thresholds were each chosen without one group of the rows (Shao and Tu 1995, section 2.3)."""
    assert predictions.thresholds is not None, "they are its own"
    folds = folds_of(predictions.fold_keys)
    _, firsts = np.unique(folds, return_index=True)  # each fold counts, even if two chose alike
    scores = [scores_of_several(replace(predictions, thresholds=predictions.thresholds[row])) for row in firsts]
    values = {key: np.array([fold_scores[key].value for fold_scores in scores]) for key in scores[0]}
    return {key: (len(firsts) - 1) * float(of_folds.var()) for key, of_folds in values.items()}


@lru_cache(maxsize=1)
def weights(n_rows: int) -> np.ndarray:
    """Return how often each draw takes each row, uint8 [1 + 1000, B]; the first takes each row once."""
    generator = np.random.default_rng(_DRAW_SEED)
    counts = np.ones((1 + _N_DRAWS, n_rows), dtype=np.uint8)
    for draw in counts[1:]:
        draw[:] = np.bincount(generator.integers(0, n_rows, n_rows), minlength=n_rows)
    return counts


def _metrics(predictions: Predictions, with_precision: bool, losses: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of one run on rows with one label, [1 + 1000] each; losses: of the rows, unscaled and scaled,
    [B, 2]. All follow from weighted sums over rows; average precision does so to first order, by its derivatives."""
    n, n_classes = predictions.probs.shape
    true, predicted = predictions.truth, predictions.predicted[:, None] == np.arange(n_classes)
    sums, precision = _sums(predictions, with_precision, losses, true & predicted, true, predicted)
    rights, trues, n_predicted = np.split(sums[:, 2:], 3, axis=1)
    return {
        "accuracy": rights.sum(axis=1) / n,
        "macro_f1": mean_f1(rights, trues + n_predicted),
        "log_loss": sums[:, 0] / n,
        "scaled_log_loss": sums[:, 1] / n,
        "average_precision": precision,
        "mcc": correlation(rights, trues, n_predicted),
    }


def _of_several(predictions: Predictions, with_precision: bool, losses: np.ndarray) -> dict[str, np.ndarray]:
    """Return the same for rows with several labels."""
    n, n_labels = predictions.probs.shape
    true, predicted = predictions.truth, predictions.predicted
    n_right = (true == predicted).sum(axis=1)
    columns = (losses, n_right, predictions.right, true & predicted, true, predicted)
    sums, precision = _sums(predictions, with_precision, *columns)
    rights, trues, n_predicted = np.split(sums[:, 4:], 3, axis=1)
    return {
        "micro_f1": mean_f1(rights.sum(axis=1)[:, None], (trues + n_predicted).sum(axis=1)[:, None]),
        "macro_f1": mean_f1(rights, trues + n_predicted),
        "hamming": sums[:, 2] / (n * n_labels),
        "subset_accuracy": sums[:, 3] / n,
        "log_loss": sums[:, 0] / n,
        "scaled_log_loss": sums[:, 1] / n,
        "average_precision": precision,
    }


def _sums(predictions: Predictions, with_precision: bool, *columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of columns, [B] or [B, any], over the rows, or groups, of each draw, float64 [1 + 1000, all]; the mean
    average precision of each, 0 if it is not asked for."""
    n = len(predictions.probs)
    value, derivative = precision_parts(predictions) if with_precision else (0.0, np.zeros(n))
    stacked = predictions.summed(np.column_stack([*columns, derivative, np.ones(n)]).astype(np.float64))
    blocks = np.array_split(weights(len(stacked)), 1 + _N_DRAWS // _BLOCK)
    sums = np.concatenate([block.astype(np.float64) @ stacked for block in blocks])
    sums = sums[:, :-1] * (n / sums[:, -1:])  # groups differ in size: each draw counts as many rows as there are
    return sums[:, :-1], np.clip(value + sums[:, -1], 0.0, 1.0)


@dataclass(frozen=True)
class Spread:
    """The variance of a mean over seeds and rows, or of a difference of two, in its parts.

    rows: of the draws of rows, for these runs · own: the part of it from rows on which seeds err differently ·
    seeds: what seeds add, some being better · dof: the seeds' degrees of freedom, None for these runs alone ·
    by_chance: of thresholds and temperatures that were fitted to the rows · n_groups: that were drawn instead of rows,
    None if each row is alone.
    """

    rows: float
    n_rows: int
    own: float = 0.0
    seeds: float = 0.0
    dof: float | None = None
    by_chance: float = 0.0
    n_groups: int | None = None

    @property
    def error(self) -> float:
        """Return the standard error; never below what the seeds show between themselves."""
        return math.sqrt(max(self.rows, self.own) + self.seeds + self.by_chance)

    @property
    def quantile(self) -> float:
        """Return Student's 97.5 % point."""
        dof = self._all_dof
        return float(special.stdtrit(dof, 0.975)) if math.isfinite(dof) else Z_95

    @property
    def half(self) -> float:
        """Return half the width of the 95 % interval; 0 if nothing varies."""
        return self.quantile * self.error if self.error > 0 else 0.0

    def p_value(self, value: float) -> float:
        """Return the two-sided p value of a mean of 0, given the observed `value`.

        If nothing varies it is the sign test's, of as many rows that all differ in one way; 1 if nothing differs.
        """
        if self.error == 0:
            return min(1.0, 2.0 * 0.5 ** (self.n_groups or self.n_rows)) if value else 1.0
        return float(2 * special.stdtr(self._all_dof, -abs(value) / self.error))

    @property
    def _all_dof(self) -> float:
        """Satterthwaite's (1946) degrees of freedom of the sum of the parts."""
        of_seeds = (self.own + self.seeds) ** 2 / self.dof if self.dof else 0.0
        n_drawn = self.n_groups or self.n_rows
        parts = self.rows**2 / max(n_drawn - 1, 1) + of_seeds + self.by_chance**2 / (N_FOLDS - 1)
        return self.error**4 / parts if parts > 0 else math.inf


def difference(first: Resampled, second: Resampled, n_rows: int) -> Difference:
    """Return the difference of a metric's means, first minus second.

    With two or more seeds on both sides it is a statement about settings: seeds and rows are resampled. Otherwise it
    is one about these runs: rows alone. The interval is the value ± a Student quantile times the bootstrap's standard
    error (Efron and Tibshirani 1993, chapter 12). The percentiles of a plain two-way bootstrap find too many false
    winners with few seeds and many rows, too few with few rows (docs/comparison.md has the measured rates): resampling
    S seeds makes their variance (S - 1) / S of what it is, counts what seeds do to single rows twice, and takes an
    estimate from S values for the truth. So the seeds' variance is estimated without bias, less the part that the
    draws of rows hold already; its degrees of freedom are those of the setting with fewer, S - 1 if nothing was
    borrowed (as Welch's test is made safe if one setting's seeds vary more than the other's).
    """
    value = float(first.values.mean() - second.values.mean())
    spread = spread_of(n_rows, first, second)
    return Difference(value, value - spread.half, value + spread.half, n_rows, spread.p_value(value))


def paired(first: Predictions, second: Predictions, metric: Metric) -> Difference:
    """Return the difference of a metric of two runs on the same rows, first minus second; the rows are resampled."""
    resampled = (resample([run], metric)[key_of(metric)] for run in (first, second))
    return difference(*resampled, n_rows=len(first.probs))


def spread_of(n_rows: int, first: Resampled, second: Resampled | None = None) -> Spread:
    """Return the spread of a setting's mean, or of its difference to a second, on n_rows rows."""
    settings = [first] if second is None else [first, second]
    drawn = first.draws.mean(axis=0) - (0.0 if second is None else second.draws.mean(axis=0))
    rows, n_groups = float(drawn.var(ddof=1)), first.n_groups
    if n_groups is not None:  # the bootstrap's variance is the sample's, which is too small for few
        rows *= n_groups / max(n_groups - 1, 1)
    by_chance = sum(0.0 if e.by_chance is None else float(e.by_chance.sum()) / len(e.values) ** 2 for e in settings)
    if min(len(setting.values) for setting in settings) == 1:
        return Spread(rows, n_rows, by_chance=by_chance, n_groups=n_groups)
    own, seeds = map(sum, zip(*map(seed_variances, settings), strict=True))
    return Spread(rows, n_rows, own, seeds, min(of_seeds(setting).dof for setting in settings), by_chance, n_groups)


def borrowing(settings: Sequence[dict[str, Resampled]]) -> list[dict[str, Resampled]]:
    """Return the metrics of all settings of a comparison, their seeds' variances moderated by each other's.

    Settings with one seed give nothing and get nothing.
    """
    able = [number for number, of_setting in enumerate(settings) if len(next(iter(of_setting.values())).values) > 1]
    borrowed = [dict(of_setting) for of_setting in settings]
    for key in settings[0]:
        of_metric = [settings[number][key] for number in able]
        variances = [float(resampled.values.var(ddof=1)) for resampled in of_metric]
        moderations = moderated(variances, [len(resampled.values) - 1 for resampled in of_metric])
        for number, resampled, value in zip(able, of_metric, moderations, strict=True):
            borrowed[number][key] = replace(resampled, moderated=value)
    return borrowed


def rows_and_seeds_needed(value: float, spread: Spread, n_seeds: int) -> Needed | None:
    """Return about how many rows would show a difference with a chance of 0.8 at level 0.05, with the existing
    seeds (n_seeds, of each setting), or else with the fewest of 5, 10, 20 and 50 that can.

    Rows do not lower what seeds add: if that hides the difference from any number of rows, more seeds show it. None if
    50 seeds and 1e9 rows would not, or there is no difference.
    """
    if value == 0:
        return None
    for n_tried in (n_seeds, *(more for more in _MORE_SEEDS if more > n_seeds > 1)):
        with_seeds = _with_seeds(spread, n_seeds, n_tried)
        # The chance need not keep rising: with more rows the few seeds count for more. A first size that suffices is
        # searched in steps of a tenth, and then between it and the one before.
        for low, high in pairwise(_SIZES):
            if _finds(value, with_seeds, high):
                sizes = range(low + 1, high + 1)
                place = bisect_left(sizes, True, key=lambda n, each=with_seeds: _finds(value, each, n))
                return Needed(sizes[place], n_tried)
    return None


def _with_seeds(spread: Spread, n_seeds: int, n_tried: int) -> Spread:
    """The spread with another number of seeds, each of which adds a degree of freedom."""
    if n_tried == n_seeds or spread.dof is None:
        return spread
    share = n_seeds / n_tried
    return replace(
        spread,
        rows=max(spread.rows - spread.own, 0.0) + spread.own * share,
        own=spread.own * share,
        seeds=spread.seeds * share,
        dof=spread.dof + n_tried - n_seeds,
    )


def _finds(value: float, spread: Spread, n_rows: int) -> bool:
    """Say whether the test finds the difference on so many rows, with a chance of 0.8."""
    parts = {key: getattr(spread, key) * spread.n_rows / n_rows for key in ("rows", "own", "by_chance")}
    n_groups = None if spread.n_groups is None else max(round(spread.n_groups * n_rows / spread.n_rows), 2)
    resized = replace(spread, n_rows=n_rows, n_groups=n_groups, **parts)
    return abs(value) >= (resized.quantile + Z_POWER) * resized.error


def seed_variances(setting: Resampled) -> tuple[float, float]:
    """Return the variance of the mean over seeds from rows on which they err differently, and what better and worse
    seeds add.

    The draws of rows hold the first already; the variance that the seeds show holds both.
    """
    n_seeds = len(setting.values)
    own = float((setting.draws - setting.draws.mean(axis=0)).var(axis=1, ddof=1).sum() / (n_seeds - 1))
    return own / n_seeds, max(of_seeds(setting).variance - own, 0.0) / n_seeds


def of_seeds(setting: Resampled) -> Moderated:
    """Return the variance of single runs of the setting, as the seeds show it, and its degrees of freedom."""
    return setting.moderated or Moderated(float(setting.values.var(ddof=1)), len(setting.values) - 1)
