"""What a run must beat: always the same answer, and a linear model on words, with several labels one for each.

They know only the training split; the model on words also chooses its regularisation, and with several labels its
threshold, on validation, as the run chose its checkpoint there. scikit-learn is imported late: planning never needs it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from submillion.config import Metric
from submillion.data import Example, Splits
from submillion.judging.comparison import Difference, mcnemar, paired
from submillion.judging.metrics import Predictions, Score, row_losses, score_by, thresholds, usual_metric
from submillion.text import shown
from submillion.words import terms

MAX_ROWS = 50_000  # training rows that the words are learnt from: about 20 s on one core
_REGULARISATIONS = (1.0, 10.0)  # scikit-learn's C
_SMOOTHINGS = (0.1, 1.0)  # naive Bayes' alpha
# Logistic regression holds about 25 numbers per weight, one for each term and class, and takes up to 300 steps of a
# product per class and number in the rows: 0.4 GB and a minute. Beyond that, naive Bayes needs one pass.
_MAX_WEIGHTS, _MAX_PRODUCTS = 2_000_000, 50_000_000
_WORDS = "words + "  # begins the name of a baseline that reads the texts
_MAJORITY, _COMMONEST = "majority class", "commonest label set"  # names that take an article in a sentence
_MAX_COUNTS = 10_000_000  # of naive Bayes, for each term and class: 0.8 GB at most


@dataclass(frozen=True)
class Baseline:
    """A baseline's scores on the report's rows, the run's `train.metric` first; `difference`: the run's accuracy minus
    its own, paired; with several labels, micro-F1."""

    name: str
    about: str
    scores: dict[str, Score]
    difference: Difference

    @property
    def accuracy(self) -> Score:
        """Return the accuracy."""
        return self.scores["accuracy"]

    @property
    def knows_words(self) -> bool:
        """Say whether it reads the texts."""
        return self.name.startswith(_WORDS)

    @property
    def in_sentence(self) -> str:
        """Return the name with the article that it takes in a sentence."""
        return f"the {self.name}" if self.name in (_MAJORITY, _COMMONEST) else self.name


def every(
    facts: Mapping[str, Any],
    labels: Sequence[str],
    splits: Splits | None,
    split: str,
    predictions: Mapping[str, Predictions],
    metric: Metric,
) -> list[Baseline]:
    """Return the baselines of a run, judged on a split: the one on words first, if its rows are at hand.

    facts: `data.json`, which has the training rows of each class.
    """
    judged, counts = predictions[split], [facts["classes"]["train"][label] for label in labels]
    if not judged.has_several:
        constant = [majority(counts, judged, metric)]
    else:
        constant = [same_labels(counts, facts["rows"]["train"], labels, judged, metric)]
        constant += [] if splits is None else [commonest_set(splits, judged, metric)]
    of_words = None if splits is None else words(splits, split, judged, metric)
    return constant if of_words is None else [of_words, *constant]


def same_labels(
    train_counts: Sequence[int], n_rows: int, labels: Sequence[str], predictions: Predictions, metric: Metric
) -> Baseline:
    """Return the baseline that always predicts the same labels: those with the highest micro-F1 on the training split,
    with the labels' shares. train_counts: how many of its n_rows rows have each label, int [C]."""
    shares = np.array(train_counts, dtype=np.float64) / n_rows
    order = np.argsort(-shares, kind="stable")
    f1 = 2 * np.cumsum(shares[order]) / (np.arange(1, len(order) + 1) + shares.sum())
    label_ids = np.sort(order[: int(f1.argmax()) + 1])
    return _constant(
        "constant labels",
        "always the same labels, the best such answer on the training split",
        label_ids,
        shares,
        labels,
        predictions,
        metric,
    )


def commonest_set(splits: Splits, predictions: Predictions, metric: Metric) -> Baseline:
    """Return the baseline that always predicts the training split's commonest label set, with the labels' shares."""
    truth = _label_ids(splits.train, splits.labels)
    commonest, _ = Counter(map(tuple, truth.tolist())).most_common(1)[0]
    about = "always the label set that most training rows have"
    label_ids = np.flatnonzero(commonest)
    return _constant(_COMMONEST, about, label_ids, truth.mean(axis=0), splits.labels, predictions, metric)


def _constant(
    name: str,
    about: str,
    label_ids: np.ndarray,
    shares: np.ndarray,
    labels: Sequence[str],
    predictions: Predictions,
    metric: Metric,
) -> Baseline:
    """A baseline that predicts the same labels for every row, by thresholds that its probabilities reach or do not."""
    names = ", ".join(shown(labels[label_id]) for label_id in label_ids) or "none"
    cutoffs = np.full(len(shares), 2.0)
    cutoffs[label_ids] = 0.0
    probs = np.tile(shares, (len(predictions.label_ids), 1))
    return _judged(name, f"{about}: {names}", probs, predictions, metric, cutoffs)


def majority(train_counts: Sequence[int], predictions: Predictions, metric: Metric = "accuracy") -> Baseline:
    """Return the baseline that always predicts the class with most training rows, int [C], with the classes' shares."""
    shares = np.array(train_counts, dtype=np.float64) / sum(train_counts)
    probs = np.tile(shares, (len(predictions.label_ids), 1))
    return _judged(_MAJORITY, "always the commonest class of the training split", probs, predictions, metric)


def words(splits: Splits, split: str, predictions: Predictions, metric: Metric = "accuracy") -> Baseline | None:
    """Return tf-idf of words with a linear classifier, fitted on the training split; None if no text has a word.

    Bounded in memory and time: of more than 50,000 training rows a fixed sample of that size is used, and with many
    classes and words complement naive Bayes (Rennie et al. 2003) replaces the regression. `about` says both.
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
    truth = {
        name: _label_ids(examples, splits.labels)
        for name, examples in (("train", train), ("validation", splits.validation))
    }
    validation = _features(vectorizer, splits.validation)
    n_classes = len(splits.labels)
    is_large = features.shape[1] * n_classes > _MAX_WEIGHTS or features.nnz * n_classes > _MAX_PRODUCTS
    method = "naive Bayes" if is_large else "logistic regression"
    best, chosen = _best(
        _bayes if is_large else _regressions, features, truth["train"], (validation, truth["validation"])
    )
    about = f"tf-idf of single words, {method} ({chosen}, chosen on validation)"
    if features.shape[1] == n_terms:
        about += f", the {n_terms:,} commonest ones"
    if len(train) < len(splits.train):
        about += f", learnt from {len(train):,} of {len(splits.train):,} training rows"
    name, judged_features = f"{_WORDS}{method}", _features(vectorizer, getattr(splits, split))
    if predictions.has_several:
        probs, own = best.predict_proba(judged_features), best.predict_proba(validation)
        where = thresholds.chosen(own, truth["validation"], "one")
        if split == "validation":
            where = thresholds.out_of_fold(own, truth["validation"], predictions.fold_keys, "one")
        return _judged(name, f"{about}, one for each label, one threshold", probs, predictions, metric, where)
    probs = np.zeros((len(predictions.label_ids), n_classes))
    probs[:, best.classes_] = best.predict_proba(judged_features)
    return _judged(name, about, probs, predictions, metric)


def _label_ids(examples: Sequence[Example], labels: Sequence[str]) -> np.ndarray:
    """The classes of rows, int64 [N], or which labels each has, 0 or 1 [N, C]."""
    ids = {label: number for number, label in enumerate(labels)}
    if not any(isinstance(example.label, tuple) for example in examples):
        return np.array([ids[str(example.label)] for example in examples])
    truth = np.zeros((len(examples), len(labels)), dtype=np.int64)
    for row, example in enumerate(examples):
        truth[row, [ids[str(label)] for label in example.label or ()]] = 1
    return truth


def _judged(
    name: str,
    about: str,
    probs: np.ndarray,
    predictions: Predictions,
    metric: Metric,
    where: np.ndarray | None = None,
) -> Baseline:
    """`where`: the thresholds of several labels."""
    judged = replace(predictions, probs=probs, thresholds=where)
    if predictions.has_several:
        difference = paired(predictions, judged, usual_metric(has_several=True))
    else:
        difference = mcnemar(predictions.right, judged.right, predictions.groups)
    return Baseline(name, about, score_by(judged, metric), difference)


def _at_most(examples: Sequence[Example], n: int) -> list[Example]:
    if len(examples) <= n:
        return list(examples)
    rows = np.random.default_rng(0).choice(len(examples), n, replace=False)
    return [examples[i] for i in np.sort(rows)]


def _best(
    models: Callable[[Any, np.ndarray], Iterator[tuple[Any, str]]],
    features: Any,
    label_ids: np.ndarray,
    validation: tuple[Any, np.ndarray],
) -> tuple[Any, str]:
    """The fitted model with most validation rows right, with several labels the smallest log loss, and what was
    chosen."""
    rows, truth = validation

    def height(model: Any) -> float:
        if truth.ndim == 1:
            return float(np.mean(model.predict(rows) == truth))
        return -float(row_losses(Predictions([], truth, model.predict_proba(rows))).mean())

    return max(models(features, label_ids), key=lambda each: height(each[0]))


def _regressions(features: Any, label_ids: np.ndarray) -> Iterator[tuple[Any, str]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    for strength in _REGULARISATIONS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after 300 steps the score moves no more
            warnings.filterwarnings(
                "ignore", "The number of unique classes", UserWarning
            )  # they are classes nonetheless
            model = _fitted(LogisticRegression(C=strength, max_iter=300), features, label_ids)
        yield model, f"C = {strength:g}"


def _bayes(features: Any, label_ids: np.ndarray) -> Iterator[tuple[Any, str]]:
    from sklearn.naive_bayes import ComplementNB

    for smoothing in _SMOOTHINGS:
        yield _fitted(ComplementNB(alpha=smoothing), features, label_ids), f"alpha = {smoothing:g}"


def _fitted(model: Any, features: Any, label_ids: np.ndarray) -> Any:
    """The model fitted to classes, or one copy for each of several labels."""
    if label_ids.ndim == 1:
        return model.fit(features, label_ids)
    from sklearn.multiclass import OneVsRestClassifier

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label not", UserWarning)  # of a label that all rows have, or none
        return OneVsRestClassifier(model).fit(features, label_ids)


def _terms(text: str) -> list[str]:
    return terms(text.lower())


def _features(vectorizer: Any, examples: Sequence[Example]) -> Any:
    return vectorizer.transform(map(text_of, examples))


def text_of(example: Example) -> str:
    """Return all words of a row: the second text of a pair follows the first."""
    return example.text if example.text_pair is None else f"{example.text} {example.text_pair}"
