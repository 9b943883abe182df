"""What a run must beat: always the commonest class, and a linear model on words.

Both know the training split only; the second also chooses its regularisation on validation, as the run chose its
checkpoint there. scikit-learn is imported late: planning never needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from submillion.data import Example, Splits
from submillion.judging.comparison import Difference, mcnemar
from submillion.judging.metrics import Predictions, Score, confusion, macro_f1, wilson
from submillion.words import terms

MAX_ROWS = 50_000  # of training that the words are learnt from: about 20 s on one core
_REGULARISATIONS = (1.0, 10.0)  # scikit-learn's C
_SMOOTHINGS = (0.1, 1.0)  # naive Bayes' alpha
# Logistic regression holds about 25 numbers for each weight, of each term and class, and takes up to 300 steps of a
# product for each number of the rows and class: 0.4 GB and a minute. Beyond, naive Bayes needs one pass.
_MAX_WEIGHTS, _MAX_PRODUCTS = 2_000_000, 50_000_000
_MAX_COUNTS = 10_000_000  # of naive Bayes, for each term and class: 0.8 GB at most


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
    """Return tf-idf of words with a linear classifier, fitted on the training split; None if no text has a word.

    Bounded in memory and time: of more than 50,000 training rows a fixed draw of as many is used, and where many
    classes meet many words, naive Bayes (of complements: Rennie et al. 2003) takes the regression's place. `about` says
    both.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = _at_most(splits.train, MAX_ROWS)
    n_terms = _MAX_COUNTS // len(splits.labels)
    terms: Any = _terms  # scikit-learn's hints know names only
    vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer=terms, max_features=n_terms)
    try:
        features = vectorizer.fit_transform(map(text_of, train))
    except ValueError:  # "empty vocabulary"
        return None
    ids = {label: number for number, label in enumerate(splits.labels)}
    label_ids = np.array([ids[str(example.label)] for example in train])
    validation, truth = _features(vectorizer, splits.validation), [ids[str(e.label)] for e in splits.validation]
    n_classes = len(splits.labels)
    is_large = features.shape[1] * n_classes > _MAX_WEIGHTS or features.nnz * n_classes > _MAX_PRODUCTS
    method = "naive Bayes" if is_large else "logistic regression"
    best, chosen = _best(_bayes if is_large else _regressions, features, label_ids, (validation, truth))
    about = f"tf-idf of single words, {method} ({chosen}, chosen on validation)"
    if features.shape[1] == n_terms:
        about += f", the {n_terms:,} commonest ones"
    if len(train) < len(splits.train):
        about += f", learnt from {len(train):,} of {len(splits.train):,} training rows"
    predicted = best.predict(_features(vectorizer, getattr(splits, split)))
    return _judged(f"words + {method}", about, predicted, predictions)


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


def _best(
    models: Callable[[Any, np.ndarray], Iterator[tuple[Any, str]]],
    features: Any,
    label_ids: np.ndarray,
    validation: tuple[Any, Sequence[int]],
) -> tuple[Any, str]:
    """The fitted model that has most validation rows right, and what was chosen."""
    rows, truth = validation
    return max(models(features, label_ids), key=lambda each: float(np.mean(each[0].predict(rows) == truth)))


def _regressions(features: Any, label_ids: np.ndarray) -> Iterator[tuple[Any, str]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    for strength in _REGULARISATIONS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after 300 steps the score moves no more
            warnings.filterwarnings(
                "ignore", "The number of unique classes", UserWarning
            )  # they are classes all the same
            model = LogisticRegression(C=strength, max_iter=300).fit(features, label_ids)
        yield model, f"C = {strength:g}"


def _bayes(features: Any, label_ids: np.ndarray) -> Iterator[tuple[Any, str]]:
    from sklearn.naive_bayes import ComplementNB

    for smoothing in _SMOOTHINGS:
        yield ComplementNB(alpha=smoothing).fit(features, label_ids), f"alpha = {smoothing:g}"


def _terms(text: str) -> list[str]:
    return terms(text.lower())


def _features(vectorizer: Any, examples: Sequence[Example]) -> Any:
    return vectorizer.transform(map(text_of, examples))


def text_of(example: Example) -> str:
    """Return all words of a row: the second text of a pair follows the first."""
    return example.text if example.text_pair is None else f"{example.text} {example.text_pair}"
