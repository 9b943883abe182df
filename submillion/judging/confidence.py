"""Act on confidence: calibrated probabilities, the rows to answer at a stated error, sets of labels.

Everything is learnt from a run's validation predictions, by methods whose promises are proved for independent and
identically distributed rows, or groups of rows. The promises are about raw confidences: a temperature is fitted on
validation rows, but raw confidences depend on them only through the choice of the checkpoint, for which the level is
divided (`n_choices`). Rows with several labels have calibrated probabilities only. Shapes: N rows, C classes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from scipy import special

from submillion.errors import ConfigError, RunError
from submillion.judging.metrics import Predictions, Score, effective_rows, numbered, scaled, share, summed
from submillion.judging.metrics.scores import errors_of
from submillion.judging.metrics.thresholds import folds_of
from submillion.text import shown

_MAX_ERROR, _COVERAGE = "--max-error (max_error)", "--coverage (coverage)"  # as messages name them
LEVEL = 0.05  # at most this share of validation samples breaks a promise
_PARTS = 10  # a tenth of the rows gives the thresholds, the others test them
_N_FORGIVEN = 2  # errors at the first threshold: with none, one odd row among the surest would end every search


@dataclass(frozen=True)
class Answering:
    """What is asked of probabilities. calibrated: logits are divided by the run's temperature · max_error: the share of
    answers that may be wrong; other rows get no label · coverage: the share of rows whose set of labels holds the true
    one. ConfigError if a share is not between 0 and 1, or both are given."""

    calibrated: bool = False
    max_error: float | None = None
    coverage: float | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {shown(value)}: give a share between 0 and 1, such as {usual}"
            for name, value, usual in ((_MAX_ERROR, self.max_error, 0.02), (_COVERAGE, self.coverage, 0.95))
            if value is not None and not _is_share(value)
        ]
        if self.max_error is not None and self.coverage is not None:
            problems.append(
                f"{_MAX_ERROR} and {_COVERAGE} are both set: rows get one label or none, or a set; give one of them"
            )
        if problems:
            raise ConfigError(*problems)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool) and bool(0 < value < 1)


@dataclass(frozen=True)
class Selection:
    """The confidence from which a label is given, so that at most `max_error` of these are wrong, with 95 % confidence.

    threshold: of the raw confidence, from 0; None if none keeps the promise · n_rows, n_tested: validation rows, and
    those that tested thresholds · n_answered, n_wrong: tested rows at or above the threshold (without one, the first
    that was tested), and how many of them are wrong · worth: independent rows per tested row, 1 without groups ·
    level: of each test, 5 % divided by the number of checkpoints that might have been chosen.
    """

    max_error: float
    threshold: float | None
    n_rows: int
    n_tested: int
    n_answered: int
    n_wrong: int
    worth: float = 1.0
    level: float = LEVEL

    def answered(self, probs: np.ndarray) -> np.ndarray:
        """Return which rows get their label, bool [N], from their raw probabilities, float64 [N, C]."""
        return np.full(len(probs), False) if self.threshold is None else probs.max(axis=1) >= self.threshold

    @property
    def problem(self) -> str:
        """Return why no threshold keeps the promise, and what to do."""
        promise = f"an error of at most {_percents(self.max_error)} with 95 % confidence"
        # What can be promised if no tested row is wrong.
        least = 1 - self.level ** (1 / max(self.n_tested * self.worth, 1))
        if least > self.max_error:
            needed = (n := _least_rows(self.max_error, self.level)) + math.ceil(n / (_PARTS - 1))
            grouped = f", in groups that are worth {round(self.n_rows * self.worth):,}" if self.worth < 1 else ""
            return (
                f"no threshold keeps {promise}: it takes {needed:,} validation rows with no error among them, and "
                f"there are {self.n_rows:,}{grouped}; train with as many, or ask for at least "
                f"{_percents(math.ceil(1e3 * least) / 1e3)}"
            )
        n_right = max((self.n_answered - self.n_wrong) * self.worth, 1)
        most = special.betaincinv(self.n_wrong * self.worth + 1, n_right, 1 - self.level)
        return (
            f"no threshold keeps {promise}: of the {self.n_answered:,} most confident validation rows, tested first, "
            f"{self.n_wrong:,} are wrong, so up to {_percents(most)} of such rows may be; ask for a larger error, "
            "or train with more validation rows"
        )


def _percents(share: float) -> str:
    return f"{100 * share:.3g} %"


def n_choices(chose: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Return how many of K checkpoints might as well have been chosen, from 1 to K.

    The effective number of choices (Hill 1973, order 2: 1 over the sum of squared shares) over resampled rows: 1,000
    normal draws of the mean scores.
    chose: each checkpoint's score of each row; the highest mean was chosen, float [K, B] · groups: of the rows.
    """
    of_units = chose.T.astype(np.float64) if groups is None else summed(chose.T.astype(np.float64), groups)
    totals = of_units.sum(axis=0)
    errors = errors_of(of_units - of_units.mean(axis=0), chose.shape[1])
    shares = np.bincount((totals + errors).argmax(axis=1)) / len(errors)
    return float(1 / (shares**2).sum())


def selection(validation: Predictions, max_error: float, n_choices: float = 1.0) -> Selection:
    """Return the lowest threshold of confidence that keeps a promise by learn-then-test (Angelopoulos et al. 2021).

    The promise: P(wrong | confidence >= threshold) <= max_error, except for at most 5 % of validation samples. For a
    threshold fixed beforehand, errors among the rows above it are binomial; it passes if the exact upper bound of their
    share (Clopper and Pearson 1934, one-sided, 95 %) is at most max_error. Thresholds are tested from the strictest
    downwards until one fails (fixed sequence testing, there): with at most 5 % probability one that passed is too low,
    without a correction for their number or an order of their risks, provided the sequence was fixed without the rows
    that test it. So a tenth of the rows, drawn by a hash of their ids, gives the thresholds, and the others test them.
    A threshold with fewer tested rows above it than could ever pass is left out: that many rows with no error are then
    always enough. If this leaves out the first that is too low, the next is lower still, and its error no smaller if
    surer rows are no worse. Rows of one group are all drawn or all tested, and counts are scaled to the independent
    rows that the tested ones are worth (Korn and Graubard 1998).

    n_choices: checkpoints that might have been chosen on these rows: each would have its threshold, and any may be too
    low, so the 5 % are divided by their number (Bonferroni).
    """
    _refuse_several(validation, _MAX_ERROR)
    confidence, is_wrong, level = validation.probs.max(axis=1), ~validation.right, LEVEL / n_choices
    n = len(confidence)
    drawn, tested = _parts(validation)
    worth = _worth(is_wrong[tested], None if validation.groups is None else validation.groups[tested])
    surest_first = tested[np.argsort(-confidence[tested], kind="stable")]
    n_wrong = np.concatenate([[0], np.cumsum(is_wrong[surest_first])])
    thresholds = _sequence(confidence[drawn], len(tested) * worth, max_error, level)
    n_above = np.searchsorted(-confidence[surest_first], -thresholds, side="right")
    is_able = n_above * worth >= _least_rows(max_error, level)
    thresholds, n_above = thresholds[is_able], n_above[is_able]
    passed = _at_most(n_wrong[n_above] * worth, n_above * worth, max_error) <= level
    n_passed = len(passed) if passed.all() else int(passed.argmin())
    last = max(n_passed - 1, 0)  # the lowest that passed, or the first, which did not
    counts = (int(n_above[last]), int(n_wrong[n_above[last]])) if len(thresholds) else (0, 0)
    return Selection(max_error, float(thresholds[last]) if n_passed else None, n, len(tested), *counts, worth, level)


def _parts(validation: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that give thresholds, a tenth or a little more, by a hash of their ids, and those that test."""
    hashes = folds_of(validation.fold_keys, 2**62)
    order = np.argsort(hashes, kind="stable")
    n_drawn = math.ceil(len(order) / _PARTS)
    if validation.groups is not None and len(order):
        n_drawn = int(np.searchsorted(hashes[order], hashes[order[n_drawn - 1]], side="right"))
    return order[:n_drawn], order[n_drawn:]


def _worth(is_wrong: np.ndarray, groups: np.ndarray | None) -> float:
    """Return how many independent rows each row is worth."""
    if groups is None or not len(groups):
        return 1.0
    return effective_rows(is_wrong - is_wrong.mean(), numbered(groups)) / len(groups)


def _at_most(n_wrong: np.ndarray, n: np.ndarray, share: float) -> np.ndarray:
    """Return the chance of at most n_wrong errors in n rows at this true share: binomial, also for fractions."""
    return special.betainc(np.maximum(n - n_wrong, 1e-9), n_wrong + 1, 1 - share)


def _sequence(drawn: np.ndarray, n_tested: float, max_error: float, level: float) -> np.ndarray:
    """Return the thresholds in test order, falling: confidences of drawn rows, and 0, which answers all.

    The first is expected to have enough tested rows above it, the most of: a tenth more than it takes to forgive two
    errors, but no more than half of all; a fifth more than it takes to pass; a tenth of all, since the few surest rows
    may be odd ones. It is not among the first two drawn, above which there may be none.
    """
    n_first = max(
        1.2 * _least_rows(max_error, level),
        min(1.1 * _least_rows(max_error, level, _N_FORGIVEN), n_tested / 2),
        n_tested / 10,
    )
    place = max(math.ceil(n_first / max(n_tested, 1) * len(drawn)), 3)
    falling = np.append(np.sort(drawn)[::-1], 0.0)
    return np.unique(falling[min(place, len(falling)) - 1 :])[::-1]


def _passes(n_answered: int, n_wrong: int, max_error: float, level: float) -> bool:
    """Say whether the upper bound of the share n_wrong / n_answered is at most max_error: a binomial test."""
    return n_answered > 0 and special.bdtr(n_wrong, n_answered, max_error) <= level


def _least_rows(max_error: float, level: float, n_wrong: int = 0) -> int:
    """Return how many rows it takes for n_wrong errors to be forgiven; the Poisson bound gives a few more."""
    most = math.ceil(special.gammaincinv(n_wrong + 1, 1 - level) / max_error) + n_wrong + 1
    return bisect_left(range(most), True, n_wrong + 1, key=lambda n: _passes(n, n_wrong, max_error, level))


@dataclass(frozen=True)
class AnsweringScores:
    """A promise measured on labelled rows: the share answered, and the share of answers that are wrong, None without
    any."""

    max_error: float
    answered: Score
    error: Score | None


def answering_scores(selected: Selection, predictions: Predictions) -> AnsweringScores:
    """Return how a promise is kept on other rows than the validation rows it was learnt from."""
    answered = selected.answered(predictions.probs)
    error = share(~predictions.right, predictions.groups, answered) if answered.any() else None
    return AnsweringScores(selected.max_error, share(answered, predictions.groups), error)


@dataclass(frozen=True)
class LabelSets:
    """Which labels a row may have: those whose raw probability is at least `threshold`, and the likeliest."""

    coverage: float
    threshold: float

    def members(self, probs: np.ndarray) -> np.ndarray:
        """Return which labels are in each row's set, bool [N, C], from its raw probabilities, float64 [N, C]."""
        likeliest = probs.argmax(axis=1)[:, None] == np.arange(probs.shape[1])
        return (probs >= self.threshold) | likeliest


def label_sets(validation: Predictions, coverage: float) -> LabelSets:
    """Return sets that hold the true label of at least this share of rows: split conformal (Sadinle et al. 2019).

    The promise: P(true label in the set) >= coverage, over validation samples and a further row. The threshold is the
    k-th largest probability of the n validation rows' true labels, k = ceil((n + 1) coverage): a further row is equally
    likely to rank anywhere among them. With G groups a row counts as 1 / its group's size, and k is of G + 1: the
    further row is of another group (Lee, Barber and Willett 2023, arXiv 2306.06342). Sets are never empty: the
    likeliest label is always included, which only adds to the coverage.
    """
    _refuse_several(validation, _COVERAGE)
    n = len(validation.ids)
    groups = np.arange(n) if validation.groups is None else validation.groups
    sizes = np.bincount(groups)
    n_groups = len(sizes)
    place = math.ceil((n_groups + 1) * coverage - 1e-9)  # 20 * 0.95 is 19
    if place > n_groups:
        raise RunError(
            f"sets with coverage {shown(coverage)} would hold every label: there are {n_groups} validation "
            f"{'rows' if n_groups == n else 'groups of rows'}, and it takes "
            f"{math.ceil(coverage / (1 - coverage) - 1e-9)}; train with as many, or ask for less"
        )
    of_truth = validation.probs[np.arange(n), validation.label_ids]
    falling = np.argsort(-of_truth, kind="stable")
    reached = np.cumsum((1 / sizes[groups])[falling])
    return LabelSets(coverage, float(of_truth[falling][np.searchsorted(reached, place - 1e-6)]))


def _refuse_several(validation: Predictions, name: str) -> None:
    if validation.has_several:
        raise RunError(
            f"{name} is for rows with one label: of several, the run's thresholds were chosen on the validation rows "
            "that would have to keep the promise; leave it out"
        )


@dataclass(frozen=True, eq=False)
class Rules:
    """How raw probabilities become answers; None: not asked for. temperature: logits are divided by it."""

    temperature: float | None = None
    selection: Selection | None = None
    sets: LabelSets | None = None
    has_several: bool = False

    def probs(self, raw: np.ndarray) -> np.ndarray:
        """Return the probabilities to show, float64 [..., C]; of several labels also their thresholds, float64 [C]."""
        return raw if self.temperature is None else scaled(raw, self.temperature, self.has_several)

    def answered(self, raw: np.ndarray) -> np.ndarray | None:
        """Return which rows get their label, bool [N], from probabilities [N, C]; None if all do."""
        return None if self.selection is None else self.selection.answered(raw)

    def members(self, raw: np.ndarray) -> np.ndarray | None:
        """Return which labels are in each row's set, bool [N, C]; None if no sets were asked for."""
        return None if self.sets is None else self.sets.members(raw)


AS_TRAINED, RAW = Answering(), Rules()  # nothing is asked for


def rules(answering: Answering, validation: Predictions, temperature: float, n_choices: float = 1.0) -> Rules:
    """Return the rules asked for, learnt from validation predictions; RunError if a promise cannot be kept. n_choices:
    see `selection`."""
    selected = None if answering.max_error is None else selection(validation, answering.max_error, n_choices)
    if selected is not None and selected.threshold is None:
        raise RunError(selected.problem)
    sets = None if answering.coverage is None else label_sets(validation, answering.coverage)
    return Rules(temperature if answering.calibrated else None, selected, sets, validation.has_several)
