"""What a run must beat: always the commonest class, and a logistic regression on words.

Both know the training split only; the second also chooses its regularisation on validation, as the run chose its
checkpoint there. scikit-learn is imported late: planning never needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from submillion.data import Example, Splits
from submillion.judging.comparison import Difference, mcnemar
from submillion.judging.metrics import Predictions, Score, confusion, macro_f1, wilson

MAX_ROWS = 50_000  # of training that the words are learnt from: about 20 s on one core
_REGULARISATIONS = (1.0, 10.0)  # scikit-learn's C


@dataclass(frozen=True)
class Baseline:
    """A baseline's scores on the report's rows; `difference` is the run's accuracy minus its own, paired."""

    name: str
    about: str
    accuracy: Score
    macro_f1: Score
    difference: Difference


def majority(train_counts: Sequence[int], predictions: Predictions) -> Baseline:
    """Return the baseline that always says the class with the most training rows, int [C]."""
    predicted = np.full(len(predictions.label_ids), int(np.argmax(train_counts)))
    return _judged("majority class", "always the commonest class of the training split", predicted, predictions)


def words(splits: Splits, split: str, predictions: Predictions) -> Baseline | None:
    """Return tf-idf of words with logistic regression, fitted on the training split; None if no text has a word.

    Of more than 50,000 training rows a fixed draw of as many is used, which `about` says.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = _at_most(splits.train, MAX_ROWS)
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        features = vectorizer.fit_transform(map(text_of, train))
    except ValueError:  # "empty vocabulary"
        return None
    ids = {label: number for number, label in enumerate(splits.labels)}
    label_ids = np.array([ids[str(example.label)] for example in train])
    validation, truth = _features(vectorizer, splits.validation), [ids[str(e.label)] for e in splits.validation]
    models = [_fitted(features, label_ids, strength) for strength in _REGULARISATIONS]
    best = max(models, key=lambda model: float(np.mean(model.predict(validation) == truth)))
    about = f"tf-idf of single words, logistic regression (C = {best.C:g}, chosen on validation)"
    if len(train) < len(splits.train):
        about += f", learnt from {len(train):,} of {len(splits.train):,} training rows"
    predicted = best.predict(_features(vectorizer, getattr(splits, split)))
    return _judged("words + logistic regression", about, predicted, predictions)


def _judged(name: str, about: str, predicted: np.ndarray, predictions: Predictions) -> Baseline:
    n_classes = predictions.probs.shape[1]
    said = Predictions(predictions.ids, predictions.label_ids, np.eye(n_classes)[predicted])
    right = predicted == predictions.label_ids
    difference = mcnemar(predictions.predicted == predictions.label_ids, right)
    f1 = macro_f1(confusion(said, n_classes))
    return Baseline(name, about, wilson(int(right.sum()), len(right)), f1, difference)


def _at_most(examples: Sequence[Example], n: int) -> list[Example]:
    if len(examples) <= n:
        return list(examples)
    rows = np.random.default_rng(0).choice(len(examples), n, replace=False)
    return [examples[i] for i in np.sort(rows)]


def _fitted(features: Any, label_ids: np.ndarray, strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after 300 steps the score moves no more
        return LogisticRegression(C=strength, max_iter=300).fit(features, label_ids)


def _features(vectorizer: Any, examples: Sequence[Example]) -> Any:
    return vectorizer.transform(map(text_of, examples))


def text_of(example: Example) -> str:
    """Return all words of a row: the second text of a pair follows the first."""
    return example.text if example.text_pair is None else f"{example.text} {example.text_pair}"
