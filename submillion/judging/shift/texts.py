"""Whether texts look like the training texts: lengths, words never seen, and a classifier that tells the two apart.

Neither the model nor labels are used. A drift that is seen here need not hurt, and one that hurts need not be seen.
Shapes: N texts of each kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from submillion.judging.metrics import Z_95, Score
from submillion.words import count, terms

MAX_TEXTS = 2_000  # of each kind that the domain classifier sees
N_WORDS = 12
_N_FOLDS, _SEED = 5, 20252
_EXACT_BELOW = 10_000  # pairs of lengths; above, the limit distribution is used


@dataclass(frozen=True)
class Lengths:
    """Words per text: the quartiles of some texts."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Telling:
    """A word that tells the texts apart, and the share of texts that have it, in training and here."""

    word: str
    in_training: float
    here: float


@dataclass(frozen=True)
class Drift:
    """How texts differ from the training texts; validation texts, unseen as these are, show what is usual.

    lengths: training, validation, here · length_distance, length_p: Kolmogorov and Smirnov's of training and here ·
    unseen: the mean share of a text's words that no training text has · n_compared: texts of each kind, at most, that
    the classifier saw · auc: of the classifier, 0.5 if nothing tells them apart; None with fewer than 10 distinct
    texts or no words · telling: words that speak for being here, strongest first, then as many that speak for training.
    """

    lengths: tuple[Lengths, Lengths, Lengths]
    length_distance: float
    length_p: float
    unseen_validation: Score
    unseen: Score
    n_compared: int
    auc: Score | None
    telling: tuple[Telling, ...]


def drift(train: Sequence[str], validation: Sequence[str], texts: Sequence[str]) -> Drift:
    """Return how `texts` differ from the training texts; each sequence has one text at least."""
    lengths = [np.array([count(text) for text in group]) for group in (train, validation, texts)]
    known = {word for text in train for word in _terms(text)}
    is_small = len(train) * len(texts) < _EXACT_BELOW
    ks: Any = scipy.stats.ks_2samp(lengths[0], lengths[2], method="exact" if is_small else "asymp")
    left, right = _at_most(train), _at_most(texts)
    auc, telling = _told_apart(left, right)
    return Drift(
        lengths=(_quartiles(lengths[0]), _quartiles(lengths[1]), _quartiles(lengths[2])),
        length_distance=float(ks.statistic),
        length_p=float(ks.pvalue),
        unseen_validation=_unseen(validation, known),
        unseen=_unseen(texts, known),
        n_compared=max(len(left), len(right)),
        auc=auc,
        telling=telling,
    )


def _terms(text: str) -> list[str]:
    return terms(text.lower())


def _quartiles(lengths: np.ndarray) -> Lengths:
    low, median, high = np.quantile(lengths, (0.25, 0.5, 0.75))
    return Lengths(float(low), float(median), float(high))


def _unseen(texts: Sequence[str], known: set[str]) -> Score:
    """The mean over texts, plus or minus 1.96 standard errors; a text without words has none unseen."""
    words = [_terms(text) for text in texts]
    shares = np.array([sum(word not in known for word in text_words) / max(1, len(text_words)) for text_words in words])
    value, n = float(np.sort(shares).mean()), len(shares)
    half = Z_95 * float(shares.std(ddof=1)) / np.sqrt(n) if n > 1 else 1.0
    return Score(value, max(value - half, 0.0), min(value + half, 1.0), n)


def _at_most(texts: Sequence[str]) -> list[str]:
    """Return the texts, sorted, or a fixed draw of too many: their order does not matter."""
    ordered = sorted(texts)
    if len(ordered) <= MAX_TEXTS:
        return ordered
    rows = np.random.default_rng(_SEED).choice(len(ordered), MAX_TEXTS, replace=False)
    return [ordered[row] for row in np.sort(rows)]


def _told_apart(train: list[str], texts: list[str]) -> tuple[Score | None, tuple[Telling, ...]]:
    """The AUC of a logistic regression on words, cross-fitted, and its most telling words.

    Equal texts are in one fold: a copy in another would be known by heart, and pull the AUC below 0.5.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    all_texts, is_here = [*train, *texts], np.repeat([0, 1], [len(train), len(texts)])
    if min(len(set(train)), len(set(texts))) < 2 * _N_FOLDS:
        return None, ()
    terms: Any = _terms  # scikit-learn's hints know names only
    vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer=terms, min_df=2)
    try:
        features = vectorizer.fit_transform(all_texts)
    except ValueError:  # "empty vocabulary"
        return None, ()
    folds = _folds(all_texts)
    scores = np.empty(len(all_texts))
    for fold in range(_N_FOLDS):
        held_out = folds == fold
        scores[held_out] = _regression(features[~held_out], is_here[~held_out]).decision_function(features[held_out])
    names = vectorizer.get_feature_names_out()
    return _auc(scores, is_here, folds), _telling(names, features, is_here)


def _folds(texts: Sequence[str]) -> np.ndarray:
    numbers = {text: number for number, text in enumerate(sorted(set(texts)))}
    drawn = np.random.default_rng(_SEED).permutation(len(numbers)) % _N_FOLDS
    return np.array([drawn[numbers[text]] for text in texts])


def _regression(features: Any, is_here: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=300, class_weight="balanced").fit(features, is_here)


def _auc(scores: np.ndarray, is_here: np.ndarray, folds: np.ndarray) -> Score:
    """The folds' mean AUC, weighted by rows: scores of two folds come from two models.

    The interval is the normal one with the standard error of Hanley and McNeil (1982, Radiology 143, equation 1).
    """
    value, n = _mean_auc(scores, is_here, folds), int(is_here.sum())
    n_train = len(is_here) - n
    spread = value * (1 - value) + (n - 1) * (value / (2 - value) - value**2)
    spread += (n_train - 1) * (2 * value**2 / (1 + value) - value**2)
    half = Z_95 * float(np.sqrt(max(spread, 0.0) / (n * n_train)))
    return Score(value, max(value - half, 0.0), min(value + half, 1.0), n)


def _mean_auc(scores: np.ndarray, is_here: np.ndarray, folds: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    with_both = [fold for fold in (folds == number for number in range(_N_FOLDS)) if len(set(is_here[fold])) == 2]
    if not with_both:
        return float("nan")
    aucs = [roc_auc_score(is_here[fold], scores[fold]) for fold in with_both]
    return float(np.average(aucs, weights=[fold.sum() for fold in with_both]))


def _telling(names: np.ndarray, features: Any, is_here: np.ndarray) -> tuple[Telling, ...]:
    weights = _regression(features, is_here).coef_[0]
    has = features > 0
    shares = [np.asarray(has[is_here == kind].mean(axis=0)).ravel() for kind in (0, 1)]
    # A weight counts by its frequency: a rare word says little about all texts.
    strength = weights * np.abs(shares[1] - shares[0])
    order = np.lexsort((names, -strength))
    for_here = [i for i in order[:N_WORDS] if strength[i] > 0]
    for_training = [i for i in order[::-1][:N_WORDS] if strength[i] < 0]
    return tuple(Telling(str(names[i]), float(shares[0][i]), float(shares[1][i])) for i in (*for_here, *for_training))
