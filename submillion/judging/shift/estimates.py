"""What predictions without labels say about class shares and accuracy, with intervals: a bootstrap of both row sets.

`priors` holds the estimators of shares; those of accuracy are here. Both use one run's validation predictions, whose
labels are known, and its predictions of the file. No method can be right for every shift (Garg et al. 2022,
section 3): each assumes that errors show in the confidence as they did on validation. Shapes: V validation rows, N rows
without labels, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from submillion.errors import DataError
from submillion.judging.metrics import Predictions, Score, effective_rows, scaled, share, temperature, wilson
from submillion.judging.shift import priors
from submillion.judging.shift.priors import SharesTest

MIN_ROWS = 10  # of either kind; below, resampled rows say nothing
_N_DRAWS, _SEED = 200, 20253
_DIGITS = 6  # of scores that count: the last bits of one text differ between batches


@dataclass(frozen=True)
class Estimates:
    """What one run's predictions of a file say; shares are in the order of the labels. All intervals are of 95 %.

    predicted, predicted_validation: shares of predicted classes, here and on validation · test: whether they differ ·
    bbse, em: estimated shares of true classes, if texts of a class look as they did; 0 to 1 if predictions do not tell
    the classes apart · missing: classes without a validation row, whose share BBSE takes as 0 · temperature: that
    scales confidences · validation: accuracy there · atc, doc: estimated accuracy here, with the interval of chance
    alone, not of the method's errors · by_class: the same if texts of a class look as they did: each class's recall on
    validation, weighted by EM's shares.
    """

    n: int
    n_validation: int
    predicted: tuple[Score, ...]
    predicted_validation: tuple[Score, ...]
    test: SharesTest
    bbse: tuple[Score, ...]
    em: tuple[Score, ...]
    missing: tuple[int, ...]
    temperature: float
    confidence_validation: float
    confidence: float
    validation: Score
    atc: Score
    doc: Score
    by_class: Score

    @property
    def apart(self) -> float:
        """Return how far BBSE's and EM's shares are apart, as a share of rows (total variation)."""
        return sum(abs(a.value - b.value) for a, b in zip(self.bbse, self.em, strict=True)) / 2


def estimate(validation: Predictions, probs: np.ndarray) -> Estimates:
    """Return the estimates for rows with these probabilities, [N, C]. The order of rows does not matter.

    DataError with fewer than 10 rows of either kind, or if a probability is not a number.
    """
    _refuse(validation, probs)
    validation, probs = _ordered(validation, probs)
    n, n_classes = probs.shape
    value, draws = _resampled(validation, probs)
    scores = [_score(number, drawn, n) for number, drawn in zip(value, draws.T, strict=True)]
    scores.append(_by_class(validation, value[2 + n_classes :], draws[:, 2 + n_classes :], n))
    if not priors.tells_apart(validation, probs):
        scores[2:] = [Score(number.value, 0.0, 1.0, n) for number in scores[2:]]
    predicted, reference = probs.argmax(axis=1), validation.predicted
    heat = temperature(validation)
    return Estimates(
        n=n,
        n_validation=len(reference),
        predicted=_shares(predicted, n_classes),
        predicted_validation=_shares(reference, n_classes),
        test=priors.shares_test(reference, predicted, n_classes),
        bbse=tuple(scores[2 : 2 + n_classes]),
        em=tuple(scores[2 + n_classes : -1]),
        missing=tuple(np.flatnonzero(np.bincount(validation.label_ids, minlength=n_classes) == 0).tolist()),
        temperature=heat,
        confidence_validation=float(scaled(validation.probs, heat).max(axis=1).mean()),
        confidence=float(scaled(probs, heat).max(axis=1).mean()),
        validation=share(validation.right, validation.groups),
        atc=scores[0],
        doc=scores[1],
        by_class=scores[-1],
    )


def class_shares(validation: Predictions, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what correcting needs: calibrated probabilities [N, C], the shares they stand for and EM's here, [C]."""
    calibrate = priors.calibrator(validation)
    calibrated, before = calibrate(probs), calibrate(validation.probs).mean(axis=0)
    return calibrated, before, priors.em(calibrated, before)


def atc(validation: np.ndarray, is_right: np.ndarray, unlabelled: np.ndarray) -> float:
    """Return the accuracy by average thresholded confidence (Garg et al. 2022, section 4).

    validation, unlabelled: scores that rise with confidence, [V] and [N] · is_right: bool [V]. The threshold is the one
    below which validation has as many rows as errors; the share of rows that reach it is the estimate. Validation
    rows that tie at the threshold are split by it, and rows here that tie with them count in the same proportion.

    >>> atc(np.array([0.3, 0.6, 0.8, 0.9]), np.array([False, True, True, True]), np.array([0.5, 0.7, 0.2, 0.95]))
    0.5
    >>> atc(np.full(4, 0.6), np.array([False, True, False, True]), np.full(10, 0.6))
    0.5
    """
    n_wrong = int((~is_right).sum())
    if n_wrong == len(validation):
        return 0.0
    validation, unlabelled = np.round(validation, _DIGITS), np.round(unlabelled, _DIGITS)
    threshold = np.sort(validation)[n_wrong]
    n_tied = int((validation == threshold).sum())
    n_tied_right = n_tied - (n_wrong - int((validation < threshold).sum()))
    n_reached = (unlabelled > threshold).sum() + (unlabelled == threshold).sum() * n_tied_right / n_tied
    return float(n_reached / len(unlabelled))


def doc(validation: np.ndarray, is_right: np.ndarray, unlabelled: np.ndarray) -> float:
    """Return validation's accuracy less the difference of mean confidences (Guillory et al. 2021, section 3.1).

    validation, unlabelled: the likeliest class's probability, [V] and [N] · is_right: bool [V].
    """
    return float(np.clip(is_right.mean() - validation.mean() + unlabelled.mean(), 0.0, 1.0))


def negative_entropy(probs: np.ndarray) -> np.ndarray:
    """Return the sum of p log p of each row, [N]: a score that rises with confidence, 0 at most."""
    return (probs * np.log(np.maximum(probs, np.finfo(np.float64).tiny))).sum(axis=1)


def _refuse(validation: Predictions, probs: np.ndarray) -> None:
    problems = [
        f"{len(rows)} rows {where}: an estimate needs at least {MIN_ROWS}"
        for rows, where in ((probs, "to estimate for"), (validation.probs, "of validation predictions"))
        if len(rows) < MIN_ROWS
    ]
    if not (np.isfinite(probs).all() and np.isfinite(validation.probs).all()):
        problems.append("some predictions are not numbers: the training diverged; train again")
    if problems:
        raise DataError(*problems)


def _ordered(validation: Predictions, probs: np.ndarray) -> tuple[Predictions, np.ndarray]:
    """Return the rows sorted by their content, so the bootstrap draws the same ones in any order."""
    rows = np.lexsort((*validation.probs.T, validation.label_ids))
    return validation.rows(rows), probs[np.lexsort(probs.T)]


def _resampled(validation: Predictions, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """atc, doc, BBSE's shares, EM's shares: on all rows [2 + 2 C], and on resampled rows [200, 2 + 2 C]."""
    generator, n = np.random.default_rng(_SEED), len(probs)
    members = _members(validation)
    value, calibrate = _numbers(validation, probs, None)
    draws = []
    for _ in range(_N_DRAWS):
        groups, sampled = generator.integers(0, len(members), len(members)), generator.integers(0, n, n)
        rows = np.concatenate([members[group] for group in groups])
        drawn = Predictions([], validation.label_ids[rows], validation.probs[rows])
        draws.append(_numbers(drawn, probs[sampled], calibrate)[0])
    return value, np.array(draws)


def _by_class(validation: Predictions, shares: np.ndarray, drawn: np.ndarray, n: int) -> Score:
    """Return the accuracy of n rows with these shares of classes, [C], and drawn ones, [200, C], by each class's recall
    on validation, drawn from its posterior (Jeffreys' prior): a class with few rows has a hardly known one."""
    n_of, n_right = (
        np.bincount(validation.label_ids[rows], minlength=len(shares))
        for rows in (np.full(len(validation.right), True), validation.right)
    )
    centred = validation.right - validation.right.mean()
    worth = effective_rows(centred, validation.groups) / len(centred)
    generator = np.random.default_rng(_SEED)
    recalls = generator.beta(n_right * worth + 0.5, (n_of - n_right) * worth + 0.5, drawn.shape)
    draws = generator.binomial(n, np.clip((drawn * recalls).sum(axis=1), 0.0, 1.0)) / n
    return _score(float(shares @ ((n_right + 0.5) / (n_of + 1))), draws, n)


def _members(validation: Predictions) -> list[np.ndarray]:
    """The rows of each group that is drawn; without groups each row is one."""
    n = len(validation.label_ids)
    if validation.groups is None:
        return list(np.arange(n)[:, None])
    order = np.argsort(validation.groups, kind="stable")
    return np.split(order, np.cumsum(np.bincount(validation.groups))[:-1])


def _numbers(
    validation: Predictions, probs: np.ndarray, start: priors.Calibrator | None
) -> tuple[np.ndarray, priors.Calibrator]:
    is_right, heat = validation.predicted == validation.label_ids, temperature(validation)
    before, after = scaled(validation.probs, heat), scaled(probs, heat)
    sure = (negative_entropy(before), is_right, negative_entropy(after))
    calibrate = priors.calibrator(validation, start)
    em = priors.em(calibrate(probs), calibrate(validation.probs).mean(axis=0))
    numbers = [atc(*sure), doc(before.max(axis=1), is_right, after.max(axis=1))]
    return np.concatenate([numbers, priors.bbse(validation, probs.argmax(axis=1)), em]), calibrate


def _score(value: float, draws: np.ndarray, n: int) -> Score:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Score(float(value), min(float(low), float(value)), max(float(high), float(value)), n)


def _shares(predicted: np.ndarray, n_classes: int) -> tuple[Score, ...]:
    counts = np.bincount(predicted, minlength=n_classes)
    return tuple(wilson(int(count), len(predicted)) for count in counts)
