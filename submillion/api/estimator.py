"""A scikit-learn classifier: `fit` is a call of `train` on rows in memory, and its finished run predicts.

Owns what scikit-learn expects of an estimator: parameters, classes in the order and of the type of y, pickles that work
elsewhere. How texts are read is left to `data.memory`, the training to `train`.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from submillion import config as configs
from submillion.api import train
from submillion.cli.progress import View
from submillion.config import Config
from submillion.data import memory, naming
from submillion.data.columns import missing_columns
from submillion.data.reading import raise_all, text_columns
from submillion.errors import ConfigError, RunError
from submillion.runs import Run
from submillion.text import a_kind, shown

if TYPE_CHECKING:
    from submillion.prediction.ensemble import Ensemble

_NESTED = "settings__"
_DOUBTFUL = frozenset("|;,\t[({")  # in a label text that may be several
# Settings that `fit` decides, with what to do instead.
_OF_FIT = {
    "data.source": "rows are given to fit as X",
    "data.label": "labels are given to fit as y",
    "data.labels": "y says whether a text has several",
    "data.label_separator": "give several labels as lists, or as a matrix of 0 and 1",
    "data.test": "keep test rows from fit, and call score with them",
    "data.fold": "scikit-learn makes the folds, as in cross_val_predict(classifier, X, y)",
}


class SubmillionClassifier(ClassifierMixin, BaseEstimator):
    """A text classifier for scikit-learn: an encoder that is fine-tuned inside a budget of trainable parameters.

    None takes the value of `settings`, or the default.

    budget: most parameters that may train, the head included · model: a name or a folder, as `model.name` · rank,
    epochs, learning_rate: as in the settings · random_state: the seed of training, an int; a RandomState gives one
    · out: the folder of run folders; None is a temporary one, which is removed with the fitted classifier, and whose
    files are part of its pickles · device: cpu, cuda or mps, for `fit` and for predictions; None is the best there is
    · verbose: show the progress of `fit` · settings: any others by their full keys, such as {"train.patience": 3};
    a search names one `settings__train.patience`.

    X is a list, a tuple, an array or a Series of texts, or of pairs (text, second text); or a DataFrame or a list of
    dicts, whose columns, joined in their order, are the text. Validation rows, which choose the checkpoint, are cut
    from X as `train` does; there is no test split and no report (`submillion.report(classifier.run_)` writes one).

    y has one label for each text; or any number of them: as a matrix of 0 and 1, [N, C] (an array, a sparse one or a
    DataFrame whose columns are the labels), or as lists of labels. Then predictions are such a matrix, whose columns
    are `classes_`, by thresholds chosen on the validation rows.

    After `fit`: `run_`, the finished run; `classes_`, sorted, of the type of y; `n_features_in_` and
    `feature_names_in_` of a DataFrame. The encoder stays in memory from the first prediction on.

        classifier = submillion.SubmillionClassifier(model="all-MiniLM-L6-v2", budget=200_000)
        print(cross_val_score(classifier, texts, labels))
    """

    def __init__(  # noqa: PLR0913 - a parameter for each setting that is searched
        self,
        *,
        budget: int | None = None,
        model: Path | str | None = None,
        rank: int | None = None,
        epochs: float | None = None,
        learning_rate: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        out: Path | str | None = None,
        device: str | None = None,
        verbose: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.budget = budget
        self.model = model
        self.rank = rank
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.out = out
        self.device = device
        self.verbose = verbose
        self.settings = settings

    def fit(self, X: Any, y: Any) -> Self:
        """Train on texts and their labels, N of both, and return the classifier.

        ValueError or TypeError if they do not suit each other or classification; else the errors of `train`.
        """
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        rows = _rows(X)
        validate_data(self, X, y, skip_check_array=True)
        several = _several_labels(y)
        labels, classes = _checked_labels(y) if several is None else several
        out = _temporary() if self.out is None else self.out
        try:
            run = self._train(rows, labels.tolist() if isinstance(labels, np.ndarray) else labels, out)
        except BaseException:
            if self.out is None:
                shutil.rmtree(out, ignore_errors=True)
            raise
        kept = run.labels()  # without those that data.drop left out; a matrix keeps all columns
        is_kept = [several is not None or naming.name_of(label) in kept for label in classes.tolist()]
        self.classes_ = classes[is_kept]
        self._hold(run, Path(out) if self.out is None else None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest label of each text, [N], of the type of y; of several a matrix of 0 and 1, int64 [N, C],
        whose columns are `classes_`."""
        probs = self.predict_proba(X)
        thresholds = self._ensemble().members.thresholds
        if thresholds is None:
            return self.classes_[probs.argmax(axis=1)]
        return (probs >= self._by_class(thresholds, absent=np.inf)).astype(np.int64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 [N, C]; columns are `classes_`. Of several labels each is by itself, and 0 if
        no training text had it."""
        check_is_fitted(self)
        rows = _rows(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        ensemble = self._ensemble()
        probs, _ = ensemble.probs(ensemble.members.read(rows), keep=True)
        return self._by_class(probs, absent=0.0)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return log probabilities, [N, C]; for two classes the log odds of the second, [N]; for several labels the
        log odds of each, [N, C]."""
        probs = self.predict_proba(X)
        logs = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
        if self.run_.has_several():
            return logs - np.log(np.maximum(1 - probs, np.finfo(np.float64).tiny))
        return logs[:, 1] - logs[:, 0] if len(self.classes_) == 2 else logs

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on texts and their labels; of several, the share of texts with all of them right."""
        check_is_fitted(self)
        if not self.run_.has_several() or (several := _several_labels(y)) is None:
            return super().score(X, y, sample_weight)
        names = [str(naming.name_of(label)) for label in self.classes_.tolist()]
        check_consistent_length(X, true := _named_as(names, y, *several))
        predicted = [{names[i] for i in np.flatnonzero(row)} for row in self.predict(X)]
        right = [labels == set(own) for labels, own in zip(predicted, true, strict=True)]  # labels new to it are wrong
        return float(np.average(right, weights=sample_weight))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; deep: each key of `settings` too, as `settings__KEY`."""
        nested = self.settings if deep and isinstance(self.settings, Mapping) else {}
        return super().get_params(deep) | {f"{_NESTED}{key}": value for key, value in nested.items()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; `settings__KEY`, whose key need not be there yet, sets one of `settings`."""
        own = {name: value for name, value in params.items() if not name.startswith(_NESTED)}
        super().set_params(**own)
        if nested := {name.removeprefix(_NESTED): params[name] for name in params if name not in own}:
            self.settings = {**configs.parse_overrides(self.settings or {}), **nested}
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: not the loaded encoder, but the files of a run in a temporary folder."""
        state = dict(vars(self))
        if state.pop("_ensembles", None) is not None and state["_is_temporary"]:
            path = self._existing()
            files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
            state["_files"] = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state; files of a run are written to a temporary folder of their own."""
        files = state.pop("_files", None)
        vars(self).update(state)
        if "run_" not in state:
            return
        folder = None if files is None else _temporary()
        run = self.run_ if folder is None else Run(folder / self.run_.name)
        for name, content in (files or {}).items():
            (run.path / name).parent.mkdir(parents=True, exist_ok=True)
            (run.path / name).write_bytes(content)
        self._hold(run, folder)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # except texts in columns
        assert tags.classifier_tags is not None, "this is a classifier"
        tags.classifier_tags.multi_label = True
        return tags

    def _by_class(self, values: np.ndarray, absent: float) -> np.ndarray:
        """The values of the run's labels, float64 [..., C], in the order of `classes_`; `absent` for one it lacks."""
        places = {label: i for i, label in enumerate(self._ensemble().labels)}
        own = [places.get(str(naming.name_of(label)), -1) for label in self.classes_.tolist()]
        return np.where(np.array(own) < 0, absent, values[..., own])

    def _train(self, rows: Any, labels: list[Any], out: Path | str) -> Run:
        config = self._config(rows, out)
        table, columns = memory.opened(rows, config.data, labelled=False)
        check_consistent_length(table.numbers, labels)
        names = text_columns(columns)
        raise_all(missing_columns(table, dict.fromkeys(names, "data.text"), "columns"))
        if ids := {*names}.intersection(naming.ID_COLUMNS):
            raise ValueError(f"X has the column {ids.pop()!r}, and its columns are read as text: leave it out")
        if not any(isinstance(cell, str) for name in names for cell in table.columns[name]):
            raise ValueError("X holds no text: give texts (str), or a DataFrame with columns of texts")
        cells = {"id": naming.ids_of(table, []), **{name: table.columns[name] for name in names}}
        assert isinstance(columns.label, str), "it is named here"
        cells[columns.label] = labels
        columns = columns.model_copy(update={"labels": _kind(labels)})
        examples = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
        config = config.model_copy(update={"data": columns})
        return train(config, examples, [View()] if self.verbose else [], as_trial=True)

    def _hold(self, run: Run, folder: Path | None) -> None:
        """Keep a run; a temporary folder around it is removed when nothing refers to it any more."""
        self.run_ = Run(run.path.resolve())
        self._is_temporary = folder is not None
        self._ensembles: dict[str | None, Ensemble] = {}
        if folder is not None:
            weakref.finalize(self.run_, shutil.rmtree, folder, ignore_errors=True)

    def _existing(self) -> Path:
        if not self.run_.path.is_dir():
            raise RunError(f"{self.run_.path}, the run of this classifier, is gone: restore the folder, or fit again")
        return self.run_.path

    def _ensemble(self) -> Ensemble:
        """The run, loaded for the device by the first prediction."""
        from submillion.prediction.ensemble import Ensemble, members

        if self.device not in self._ensembles:
            self._existing()
            self._ensembles[self.device] = Ensemble(members(self.run_, self.device))
        return self._ensembles[self.device]

    def _config(self, rows: Any, out: Path | str) -> Config:
        """The settings, with those of the parameters and of the rows' columns."""
        others = configs.parse_overrides(self.settings or {})
        own = {
            "budget": self.budget,
            "model.name": self.model,
            "adapter.rank": self.rank,
            "train.epochs": self.epochs,
            "train.learning_rate": self.learning_rate,
            "train.seed": self._seed(),
            "device": self.device,
            "out": out,
        }
        own = {key: value for key, value in own.items() if value is not None}
        problems = [f"settings has {key}: {advice}" for key, advice in _OF_FIT.items() if others.get(key) is not None]
        problems += [f"settings has {key}, and so has a parameter of its own: keep one" for key in own if key in others]
        if problems:
            raise ConfigError(*problems)
        return configs.load(overrides={**_columns(rows, others.get("data.text_pair")), **own, **others})

    def _seed(self) -> int | None:
        if isinstance(self.random_state, np.random.RandomState):
            return int(self.random_state.randint(np.iinfo(np.int32).max))
        return self.random_state


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="submillion-"))


def _rows(X: Any) -> Any:
    """X as `data.memory` takes rows: an array with one column is an array of texts."""
    if issparse(X):
        raise TypeError(f"X is a sparse matrix, {a_kind(X)}: give the texts themselves, not their vectors")
    if isinstance(X, str | PathLike):
        raise ValueError(f"X is {shown(X)}: give texts in a list; `submillion.train` reads files")
    if memory.kind_of(X) is not None and not len(X):
        raise ValueError("X has no rows: give texts")
    return X[:, 0] if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1 else X


def _columns(rows: Any, text_pair: str | None) -> dict[str, Any]:
    """The settings of columns: all are the text, except one that is named as the second text."""
    match memory.kind_of(rows):
        case "DataFrame":
            names = list(map(str, rows.columns))
        case "Dataset":
            names = rows.column_names
        case "texts" if any(isinstance(row, Mapping) for row in rows):
            names = list(dict.fromkeys(str(name) for row in rows if isinstance(row, Mapping) for name in row))
        case "texts" if any(isinstance(row, list | tuple | np.ndarray) and len(row) == 2 for row in rows):
            return {"data.text_pair": "text_pair"}
        case _:
            return {}
    texts = tuple(name for name in names if name != text_pair)
    if not texts:
        raise ValueError(
            f"X has no column of texts: 0 feature(s) (shape=({len(rows)}, 0)) while a minimum of 1 is required."
        )
    label = "label"
    while label in (*names, text_pair):
        label += "_"
    return {"data.text": texts[0] if len(texts) == 1 else texts, "data.label": label}


def _kind(labels: list[Any]) -> Literal["one", "several"] | None:
    """The `data.labels` of checked labels: a text that looks like several is one here."""
    if isinstance(labels[0], list):
        return "several"
    is_doubtful = any(_DOUBTFUL.intersection(label) for label in labels if isinstance(label, str))
    return "one" if is_doubtful else None


def _several_labels(y: Any) -> tuple[list[list[str]], np.ndarray] | None:
    """The names of each text's labels, and the labels in scikit-learn's order; None if y has one for each.

    ValueError for a matrix that holds anything but 0 and 1.
    """
    if (matrix := _matrix_of(y)) is not None:
        classes = np.array(list(y.columns), dtype=object) if hasattr(y, "columns") else np.arange(matrix.shape[1])
        if not np.isin(matrix, (0, 1)).all():
            raise ValueError(
                f"y is a matrix, {matrix.shape[0]:,} by {matrix.shape[1]:,}, and holds more than 0 and 1: give a label "
                "for each text, or a column of 0 and 1 for each label (classification, not regression)"
            )
        names = [str(naming.name_of(label)) for label in classes.tolist()]
        return [[names[i] for i in np.flatnonzero(row == 1)] for row in matrix], classes
    is_of_rows = memory.kind_of(y) == "texts" and getattr(y, "ndim", 1) == 1  # not an array of one column
    rows = list(map(memory.plain, y)) if is_of_rows else []
    others = [number for number, row in enumerate(rows) if not isinstance(row, list | tuple | set | frozenset)]
    if len(others) == len(rows):
        return None
    if others:
        raise ValueError(f"y has lists of labels for some texts, and not in row {others[0]}: give a list for each")
    label_lists = [[memory.plain(label) for label in row] for row in rows]
    if any(naming.name_of(label) is None for row in label_lists for label in row):
        raise ValueError("y has a label that is missing or empty in one of its lists: leave it out, or name it")
    classes = np.unique([label for row in label_lists for label in row])
    return [[str(naming.name_of(label)) for label in row] for row in label_lists], classes


def _named_as(names: list[str], y: Any, rows: list[list[str]], labels: np.ndarray) -> list[list[str]]:
    """The names of each text's labels; a matrix without names has the columns `names`. ValueError for other columns."""
    if _matrix_of(y) is None:
        return rows
    own, has_names = [str(naming.name_of(label)) for label in labels.tolist()], hasattr(y, "columns")
    if len(own) != len(names) or (has_names and set(own) != set(names)):
        what = f"the columns {shown(own)}" if has_names else f"{len(own):,} columns"
        raise ValueError(f"y has {what}, and classes_ are {shown(names)}: give a column for each of these")
    return rows if has_names else [[names[int(place)] for place in row] for row in rows]


def _matrix_of(y: Any) -> np.ndarray | None:
    """y as an array, [N, C], if it is a matrix of several columns; lists of 0 and 1 of one length are its rows."""
    values: Any = y.toarray() if issparse(y) else y
    if isinstance(y, list | tuple) and all(isinstance(row, list | tuple | np.ndarray) for row in y):
        rows = list(map(memory.plain, y))
        is_of_numbers = all(isinstance(cell, int | float) and cell in (0, 1) for row in rows for cell in row)
        values = np.array(rows) if is_of_numbers and len({len(row) for row in rows}) == 1 else y
    is_matrix = getattr(values, "ndim", 1) == 2 and values.shape[1] > 1
    return np.asarray(values) if is_matrix else None


def _checked_labels(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """y, and its classes in scikit-learn's order; ValueError unless each row has one of several classes."""
    labels = column_or_1d(y.to_numpy() if hasattr(y, "to_numpy") else y, warn=True)  # pandas' own types
    values = list(map(memory.plain, labels.tolist()))
    names = list(map(naming.name_of, values))
    bad = (row for row, name in enumerate(names) if name is None or values[row] in (np.inf, -np.inf))
    if (first := next(bad, None)) is not None:
        raise ValueError(
            f"Input y contains NaN, infinity or an empty label, first in row {first}: give each text a label"
        )
    kinds = {type(value).__name__ for value in values}
    if len(kinds) > 1 and kinds != {"int", "float"}:
        raise ValueError(f"y has labels of several types, {', '.join(sorted(kinds))}: give all of one")
    check_classification_targets(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"y has {len(classes)} class{'es' * (len(classes) != 1)}: at least 2 are needed")
    if len(set(names)) < len(classes):
        raise ValueError("y has classes that differ in white space only: write each in one way")
    return labels, classes
