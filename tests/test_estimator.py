"""Laws of the scikit-learn estimator: it is `train` and `predict` in scikit-learn's words, and works in its tools."""

from __future__ import annotations

import gc
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

import submillion
from submillion import SubmillionClassifier
from submillion.data import naming
from submillion.errors import ConfigError, DataError, RunError
from tests.tiny import WORDS, make_encoder

SETTINGS = {"train.steps": 2, "train.batch_size": 8, "train.precision": "fp32"}
TEXTS = [f"{word} {i}" for i in range(8) for word in ("a good film", "the bad game")]
LABELS = ["yes", "no"] * 8


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder("bert", tmp_path_factory.mktemp("encoder"), n_layers=1, width=16)


@pytest.fixture(scope="module")
def new(encoder: Path) -> SubmillionClassifier:
    """An unfitted classifier, to be cloned."""
    return SubmillionClassifier(model=encoder, budget=20_000, settings=SETTINGS)


@pytest.fixture(scope="module")
def fitted(new: SubmillionClassifier, tmp_path_factory: pytest.TempPathFactory) -> SubmillionClassifier:
    """A classifier that learned, whose run is in a folder of its own."""
    out, settings = tmp_path_factory.mktemp("out"), {**SETTINGS, "train.steps": 30}
    return clone(new).set_params(out=out, learning_rate=1e-2, settings=settings).fit(TEXTS, LABELS)


# scikit-learn's own checks


class OnNumbers(SubmillionClassifier):
    """The checks give arrays of numbers: here each number is a word and its digits, and each column a column of texts.

    What is wrong with an array is not looked at, so that the classifier does.
    """

    def fit(self, X: Any, y: Any) -> OnNumbers:
        return super().fit(_words(X), y)

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(_words(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string, tags.input_tags.one_d_array = True, False, False
        tags.classifier_tags.poor_score = True  # of two steps
        return tags


def _words(X: Any) -> Any:
    values = np.array(X) if isinstance(X, list) else X
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "iuf":
        return X
    if not len(values) or not np.isfinite(values).all():
        return X
    words = [[f"{WORDS[int(value) % len(WORDS)]} {value:.3f}" for value in row] for row in values.tolist()]
    return pd.DataFrame(words)


# Checks that a classifier of texts fails, and why.
EXPECTED = {
    "check_array_api_input": "skipped: it wants an environment variable, and is of arrays of numbers",
    "check_estimators_nan_inf": "NaN and inf are numbers, and no array of numbers is read",
    "check_dtype_object": "no array of numbers is read, whatever its dtype",
    "check_classifier_data_not_an_array": "an object that only numpy can read is refused: it may hold anything",
    "check_fit2d_predict1d": "the advice to reshape is for numbers",
}


@pytest.mark.slow
def test_the_checks_of_scikit_learn_pass_but_those_that_need_numbers(new: SubmillionClassifier) -> None:
    classifier = OnNumbers(**{**new.get_params(deep=False), "settings": {**SETTINGS, "train.steps": 1}})
    # Those that come again with other dtypes and read-only arrays are run once.
    checks = {check.func.__name__: partial(check, own) for own, check in estimator_checks_generator(classifier)}
    failed = dict[str, Exception]()
    for name, check in checks.items():
        try:
            check()
        except (AssertionError, ValueError, DataError, SkipTest) as error:
            failed[name] = error
    assert failed.keys() == EXPECTED.keys(), {name: failed[name] for name in failed.keys() - EXPECTED.keys()}
    assert len(checks) > 50


def test_a_classifier_of_texts_says_so_in_its_tags(new: SubmillionClassifier) -> None:
    tags = new.__sklearn_tags__()
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert tags.estimator_type == "classifier"
    assert tags.target_tags.required


# Texts and labels


PAIRS = [("a good film", f"{i}") for i in range(6)] + [("the bad game", f"{i}") for i in range(6)]
FRAME = pd.DataFrame(PAIRS, columns=["title", "label"])


@pytest.mark.parametrize(
    ("X", "n_features"),
    [
        (TEXTS, None),
        (tuple(TEXTS), None),
        (np.array(TEXTS), None),
        (np.array(TEXTS, dtype=object)[:, None], 1),
        (pd.Series(TEXTS, index=range(5, 21)), None),
        (pd.Series(TEXTS).values, None),
        (pd.DataFrame({"review": TEXTS}), 1),
        (PAIRS, 2),
        (np.array(PAIRS), 2),
        (FRAME, 2),
        (FRAME.to_dict("records"), None),
    ],
    ids=[
        "list",
        "tuple",
        "array",
        "column",
        "Series",
        "values",
        "frame",
        "pairs",
        "array of pairs",
        "columns",
        "dicts",
    ],
)
def test_texts_are_taken_as_people_have_them(new: SubmillionClassifier, X: Any, n_features: int | None) -> None:
    classifier = clone(new).fit(X, np.arange(len(X)) % 2 == 0)
    assert classifier.classes_.tolist() == [False, True]
    assert getattr(classifier, "n_features_in_", None) == n_features
    rows = X[:, 0] if isinstance(X, np.ndarray) and X.shape[1:] == (1,) else X
    found = submillion.predict(classifier.run_, rows)
    assert (classifier.predict_proba(X) == found.probs).all()
    assert classifier.predict(X).tolist() == found.labels
    assert classifier.run_.scores().keys() == {"validation"}


def test_columns_are_the_text_and_are_the_same_for_predictions(new: SubmillionClassifier) -> None:
    classifier = clone(new).fit(FRAME, ["a", "b"] * 6)
    assert classifier.feature_names_in_.tolist() == ["title", "label"]
    assert classifier.run_.config().data.text == ("title", "label")
    for wrong in (FRAME[["label", "title"]], FRAME.rename(columns={"label": "body"})):
        with pytest.raises(ValueError, match="feature names should match"):
            classifier.predict(wrong)
    with (
        pytest.warns(UserWarning, match="valid feature names"),
        pytest.raises(ValueError, match="expecting 2 features"),
    ):
        classifier.predict(FRAME["title"])
    paired = clone(new).set_params(**{"settings__data.text_pair": "label"}).fit(FRAME, ["a", "b"] * 6)
    as_pairs = clone(new).fit(PAIRS, ["a", "b"] * 6)
    assert (paired.predict_proba(FRAME) == as_pairs.predict_proba(PAIRS)).all()


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([10, 9] * 8, [9, 10]),
        (np.array([-1, 1] * 8), [-1, 1]),
        ([2.0, 1.0] * 8, [1.0, 2.0]),
        (np.array([True, False] * 8), [False, True]),
        (["10", "9"] * 8, ["10", "9"]),
        ([" b", "a"] * 8, [" b", "a"]),
        (pd.Series(["b", "a"] * 8, dtype="category"), ["a", "b"]),
        (pd.Series([1, 0] * 8, dtype="Int64"), [0, 1]),
    ],
    ids=["int", "signed", "float", "bool", "digits", "blank", "category", "Int64"],
)
def test_labels_keep_their_type_and_scikit_learns_order(new: SubmillionClassifier, y: Any, classes: list[Any]) -> None:
    classifier = clone(new).fit(TEXTS, y)
    assert classifier.classes_.tolist() == classes
    assert [type(label) for label in classifier.classes_.tolist()] == [type(label) for label in classes]
    found, names = submillion.predict(classifier.run_, TEXTS), [str(naming.name_of(label)) for label in classes]
    probs = classifier.predict_proba(TEXTS)
    assert (probs == found.probs[:, [list(map(str, found.classes)).index(name) for name in names]]).all()
    assert classifier.predict(TEXTS).tolist() == [classes[i] for i in probs.argmax(axis=1)]
    assert (classifier.decision_function(TEXTS) > 0).tolist() == (probs[:, 1] > probs[:, 0]).tolist()
    assert classifier.score(TEXTS, y) == np.mean([a == b for a, b in zip(classifier.predict(TEXTS), y, strict=True)])


def test_decisions_are_log_odds_of_two_classes_and_log_probabilities_of_more(
    fitted: SubmillionClassifier, new: SubmillionClassifier
) -> None:
    probs = fitted.predict_proba(TEXTS)
    np.testing.assert_allclose(fitted.decision_function(TEXTS), np.log(probs[:, 1] / probs[:, 0]))
    three = clone(new).fit([*TEXTS, "play 1", "play 2"], [*LABELS, "perhaps", "perhaps"])
    assert three.classes_.tolist() == ["no", "perhaps", "yes"]
    np.testing.assert_allclose(three.decision_function(TEXTS), np.log(three.predict_proba(TEXTS)))


def test_classes_that_are_dropped_are_no_classes(new: SubmillionClassifier) -> None:
    classifier = clone(new).set_params(**{"settings__data.drop": "rare-classes"})
    classifier.fit([*TEXTS, "play"], [*LABELS, "rare"])
    assert classifier.classes_.tolist() == ["no", "yes"]
    assert classifier.predict_proba(["play"]).shape == (1, 2)


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (TEXTS, LABELS[:3], ValueError, r"inconsistent numbers of samples: \[16, 3\]"),
        (TEXTS, None, ValueError, "requires y"),
        (TEXTS, ["yes"] * 16, ValueError, "y has 1 class: at least 2"),
        ([], [], ValueError, "X has no rows"),
        (TEXTS, [1.5, 2.5] * 8, ValueError, "continuous.* regression target"),
        (TEXTS, ["1.5", "2.5"] * 8, DataError, "regression target"),
        (TEXTS, [1.0, float("nan")] * 8, ValueError, "y contains NaN, infinity or an empty label, first in row 1"),
        (TEXTS, [float("inf"), 1.0] * 8, ValueError, "first in row 0"),
        (TEXTS, [], ValueError, "y has 0 classes"),
        (TEXTS, ["a", "b", None, "b"] * 4, ValueError, "first in row 2"),
        (TEXTS, pd.Series(["a", pd.NA] * 8), ValueError, "first in row 1"),
        (TEXTS, ["a", " "] * 8, ValueError, "first in row 1"),
        (TEXTS, np.array(["a", 1] * 8, dtype=object), ValueError, "labels of several types, int, str"),
        (TEXTS, ["a", " a"] * 8, ValueError, "differ in white space"),
        (TEXTS, np.array([["a", "b"]] * 16), ValueError, "holds more than 0 and 1"),
        (TEXTS, [["a"], None] * 8, ValueError, r"lists of labels for some texts.* row 1"),
        (csr_matrix(np.eye(16)), LABELS, TypeError, "X is a sparse matrix"),
        (np.eye(16), LABELS, DataError, "is a list: give texts"),
        (np.eye(16)[:, :2], LABELS, ValueError, "X holds no text"),
        (pd.DataFrame(index=range(16)), LABELS, ValueError, "X has no column of texts"),
        (pd.DataFrame(np.eye(16)), LABELS, ValueError, "X holds no text"),
        ("texts.csv", LABELS, ValueError, "X is 'texts.csv': give texts in a list"),
        ([*TEXTS[:-1], " "], LABELS, DataError, "row 16 .* is empty"),
        (pd.DataFrame({"id": TEXTS, "text": TEXTS}), LABELS, ValueError, "X has the column 'id'"),
        ((text for text in TEXTS), LABELS, DataError, r"a generator: give list\(x\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_an_unfitted_classifier(
    new: SubmillionClassifier, X: Any, y: Any, error: type[Exception], message: str
) -> None:
    classifier = clone(new)
    with pytest.raises(error, match=message):
        classifier.fit(X, y)
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)


def test_a_fit_that_fails_forgets_the_one_before(fitted: SubmillionClassifier) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    with pytest.raises(ValueError, match="1 class"):
        again.fit(TEXTS, [1] * 16)
    with pytest.raises(NotFittedError):
        again.predict(TEXTS)
    assert fitted.score(TEXTS, LABELS) == 1.0


# Parameters


def test_parameters_are_settings(new: SubmillionClassifier, tmp_path: Path) -> None:
    classifier = clone(new).set_params(rank=np.int64(2), epochs=1, learning_rate=np.float64(0.01), out=tmp_path)
    classifier.set_params(random_state=7, device="cpu", settings={"train": {"batch_size": 4}})
    config = classifier.fit(TEXTS, LABELS).run_.config()
    assert (config.budget, config.adapter.rank, config.train.epochs, config.train.learning_rate) == (20000, 2, 1, 0.01)
    assert (config.train.seed, config.train.batch_size, config.device, config.out) == (7, 4, "cpu", str(tmp_path))
    assert classifier.run_.path.parent == tmp_path.resolve()
    assert classifier.fit(TEXTS, LABELS).run_ == classifier.run_, "asked again, it is found"
    drawn = classifier.set_params(random_state=np.random.RandomState(3)).fit(TEXTS, LABELS)
    assert drawn.run_.config().train.seed == np.random.RandomState(3).randint(np.iinfo(np.int32).max)


def test_each_key_of_the_settings_is_a_parameter(new: SubmillionClassifier) -> None:
    classifier = clone(new).set_params(**{"settings__train.patience": 3})
    assert classifier.get_params()["settings__train.patience"] == 3
    assert classifier.settings == {**SETTINGS, "train.patience": 3}
    assert new.settings == SETTINGS
    assert SubmillionClassifier().set_params(**{"settings__train.steps": 1}).settings == {"train.steps": 1}
    with pytest.raises(ValueError, match="Invalid parameter 'patience'"):
        classifier.set_params(patience=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.learning_rate": 1.0}, "settings has train.learning_rate, and so has a parameter"),
        ({"out": "runs"}, "settings has out, and so has a parameter"),
        ({"data.source": "a.csv"}, "settings has data.source: rows are given to fit as X"),
        ({"data.test": 0.1}, "settings has data.test: keep test rows from fit"),
        ({"data.fold": "1/3"}, "settings has data.fold: scikit-learn makes the folds"),
        ({"train.patiense": 1}, "did you mean 'patience'"),
        ({"data.text": "titel"}, "no column 'titel'; it has title, label; did you mean 'title'"),
        (3, "give a list of texts"),
    ],
)
def test_settings_that_cannot_be_are_refused(new: SubmillionClassifier, settings: Any, message: str) -> None:
    classifier = clone(new).set_params(learning_rate=1e-3, settings=settings)
    with pytest.raises((ConfigError, DataError), match=message):
        classifier.fit(FRAME, ["a", "b"] * 6)


# Tools of scikit-learn


def test_scores_of_folds_and_searches_over_settings(new: SubmillionClassifier) -> None:
    assert cross_val_score(new, TEXTS, LABELS, cv=2).shape == (2,)
    grid = {"rank": [1, 2], "settings__adapter.sites": ["query"]}
    search = GridSearchCV(new, grid, cv=2, scoring=["accuracy", "neg_log_loss", "roc_auc"], refit="neg_log_loss")
    search.fit(pd.Series(TEXTS), np.array(LABELS))
    assert search.best_estimator_.run_.read_json("plan.json")["ranks"] == {"query": search.best_params_["rank"]}
    assert np.isfinite(search.cv_results_["mean_test_roc_auc"]).all()
    assert search.predict(TEXTS).shape == (16,)


def test_pipelines_calibration_and_bagging(new: SubmillionClassifier, fitted: SubmillionClassifier) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, fitted)
    assert pipeline.predict([text.upper() for text in TEXTS]).tolist() == LABELS
    pipeline = clone(pipeline).set_params(submillionclassifier__settings=SETTINGS)
    assert pipeline.fit(TEXTS, LABELS).predict(TEXTS).shape == (16,)
    for calibrated in (CalibratedClassifierCV(FrozenEstimator(fitted)), CalibratedClassifierCV(new, cv=2)):
        np.testing.assert_allclose(calibrated.fit(TEXTS, LABELS).predict_proba(TEXTS).sum(axis=1), 1)
    several = BaggingClassifier(new, n_estimators=2, random_state=0).fit(np.array(TEXTS)[:, None], LABELS)
    assert len({each.run_.config().train.seed for each in several.estimators_}) == 2
    assert several.predict(np.array(TEXTS)[:, None]).shape == (16,)


# Run folders


def test_a_temporary_run_goes_with_the_classifier_and_is_part_of_its_pickles(new: SubmillionClassifier) -> None:
    classifier = clone(new).fit(TEXTS, LABELS)
    probs, path, pickled = classifier.predict_proba(TEXTS), classifier.run_.path, pickle.dumps(classifier)
    run = classifier.run_
    del classifier
    gc.collect()
    assert path.is_dir(), "who holds the run holds its folder"
    del run
    gc.collect()
    assert not path.parent.exists()
    again = pickle.loads(pickled)
    assert again.run_.path != path
    assert (again.predict_proba(TEXTS) == probs).all()
    assert (pickle.loads(pickle.dumps(again)).predict_proba(TEXTS) == probs).all()
    shutil.rmtree(again.run_.path)
    for use in (pickle.dumps, lambda gone: gone.set_params(device="cpu").predict(TEXTS)):
        with pytest.raises(RunError, match="is gone: restore the folder, or fit again"):
            use(again)


def test_a_run_in_a_given_folder_stays_there(
    fitted: SubmillionClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probs, pickled = fitted.predict_proba(TEXTS), pickle.dumps(fitted)
    assert len(pickled) < 5_000, "its path alone"
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickled)
    assert (again.predict_proba(TEXTS) == probs).all()
    (moved := fitted.run_.path.with_name("moved")).parent.joinpath(fitted.run_.name).rename(moved)
    try:
        with pytest.raises(RunError, match="is gone"):
            pickle.loads(pickled).predict(TEXTS)
    finally:
        moved.rename(fitted.run_.path)


def test_a_fit_that_fails_leaves_no_folder(
    new: SubmillionClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(submillion.BudgetError):
        clone(new).set_params(budget=1).fit(TEXTS, LABELS)
    assert not list(tmp_path.iterdir())


def test_copies_and_clones(fitted: SubmillionClassifier) -> None:
    with pytest.raises(NotFittedError):
        clone(fitted).predict(TEXTS)
    assert clone(FrozenEstimator(fitted)).predict(TEXTS).tolist() == LABELS


# Several labels


NAMES = ("film", "game", "good")
MANY = [f"{one} {two} {i}" for i in range(6) for one in ("a good", "the bad") for two in ("film", "game", "book")]
SEVERAL = [[name for name in NAMES if name in text.split()] for text in MANY]
MATRIX = np.array([[name in own for name in NAMES] for own in SEVERAL], dtype=int)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (SEVERAL, ["film", "game", "good"]),
        (list(map(set, SEVERAL)), ["film", "game", "good"]),
        (pd.Series(SEVERAL), ["film", "game", "good"]),
        (pd.DataFrame(MATRIX, columns=[*NAMES]), ["film", "game", "good"]),
        (MATRIX, [0, 1, 2]),
        (MATRIX.astype(bool), [0, 1, 2]),
        (MATRIX.tolist(), [0, 1, 2]),
        (csr_matrix(MATRIX), [0, 1, 2]),
    ],
    ids=["lists", "sets", "Series", "frame", "matrix", "bool", "rows", "sparse"],
)
def test_several_labels_are_a_matrix_or_lists_and_are_predicted_as_a_matrix(
    new: SubmillionClassifier, y: Any, classes: list[Any]
) -> None:
    settings = {**SETTINGS, "train.steps": 12}
    classifier = clone(new).set_params(learning_rate=3e-2, settings=settings).fit(MANY, y)
    assert classifier.classes_.tolist() == classes
    predicted, probs = classifier.predict(MANY), classifier.predict_proba(MANY)
    assert predicted.shape == probs.shape == MATRIX.shape
    assert set(np.unique(predicted)) <= {0, 1}
    assert np.array_equal(predicted, probs >= classifier.run_.thresholds())
    assert classifier.score(MANY, y) == (predicted == MATRIX).all(axis=1).mean()
    assert np.allclose(1 / (1 + np.exp(-classifier.decision_function(MANY))), probs)


def test_a_score_counts_the_labels_of_y_whatever_holds_them(new: SubmillionClassifier) -> None:
    classifier = clone(new).fit(MANY, pd.DataFrame(MATRIX, columns=[*NAMES]))
    matrix = classifier.predict(MANY)
    matrix[::2, 0] ^= 1
    right = np.arange(len(MANY)) % 2 == 1
    frame = pd.DataFrame(matrix, columns=[*NAMES])
    lists = [[name for name, one in zip(NAMES, row, strict=True) if one] for row in matrix]
    for y in (frame, frame[[*reversed(NAMES)]], matrix, matrix.tolist(), csr_matrix(matrix), lists):
        assert classifier.score(MANY, y) == 0.5
    weights = np.arange(len(MANY))
    assert classifier.score(MANY, matrix, weights) == pytest.approx(np.average(right, weights=weights))
    unseen = [[*own, "a label that fit did not see"] for own in lists]
    assert classifier.score(MANY, unseen) == 0
    for y, found in ((matrix[:, :2], "2 columns"), (frame.rename(columns={"film": "filme"}), "the columns .*filme")):
        with pytest.raises(ValueError, match=f"y has {found}.* give a column for each"):
            classifier.score(MANY, y)


def test_a_column_of_labels_is_one_label_each(new: SubmillionClassifier) -> None:
    with pytest.warns(DataConversionWarning, match="column-vector"):
        classifier = clone(new).fit(TEXTS, np.array(LABELS)[:, None])
    assert classifier.classes_.tolist() == ["no", "yes"]
    assert classifier.predict(TEXTS).shape == (len(TEXTS),)


def test_a_column_that_no_text_has_is_never_predicted(new: SubmillionClassifier) -> None:
    matrix = np.hstack([MATRIX, np.zeros((len(MANY), 1), dtype=int)])
    classifier = clone(new).fit(MANY, matrix)
    assert classifier.classes_.tolist() == [0, 1, 2, 3]
    assert not classifier.predict(MANY)[:, 3].any()
    assert not classifier.predict_proba(MANY)[:, 3].any()


def test_texts_that_look_like_several_labels_are_one(new: SubmillionClassifier) -> None:
    classifier = clone(new).fit(TEXTS, ["a|b", "a", "b", "b|a"] * 4)
    assert classifier.classes_.tolist() == ["a", "a|b", "b", "b|a"]


@pytest.mark.parametrize("y", [np.random.default_rng(0).normal(size=(len(MANY), 3)), MATRIX * 2])
def test_a_matrix_of_other_numbers_is_refused(new: SubmillionClassifier, y: np.ndarray) -> None:
    with pytest.raises(ValueError, match="holds more than 0 and 1"):
        clone(new).fit(MANY, y)
