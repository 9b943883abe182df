"""Predictions as Parquet files: columns that identify the rows, then the probabilities of each label.

A split's are in the run's folder and sealed, with `group`, a number, if rows are not independent of each other.
Those of unlabelled rows are in a folder that `DONE` does not seal, `<run>/shift/<name>/predictions.parquet`: id,
predicted, and prob_<label> per label; its name says which rows they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from submillion.judging.metrics import Predictions, numbered
from submillion.runs.files import reported, write_atomically

if TYPE_CHECKING:
    from submillion.data import Label

PROB, THRESHOLD, GROUP = "prob_", "threshold_", "group"
_FILE = "predictions.parquet"


def columns_of(predictions: Predictions, classes: Sequence[Label]) -> tuple[dict[str, Any], list[str], np.ndarray]:
    """Return the content of a labelled split's file: columns that identify the rows, and names and values of numbers,
    float64 [N, names]: the probabilities, and with several labels the thresholds, if each row has its own."""
    labels, names = np.array(classes, dtype=object), [f"{PROB}{label}" for label in classes]
    if not predictions.has_several:
        label_ids, predicted = predictions.label_ids, labels[predictions.predicted]
        columns = {"id": predictions.ids, "label": labels[label_ids], "label_id": label_ids, "predicted": predicted}
        return columns | _group_column(predictions), names, predictions.probs
    truth = [np.flatnonzero(row) for row in predictions.label_ids]
    columns = {
        "id": predictions.ids,
        "label": [labels[ids].tolist() for ids in truth],
        "label_id": [ids.tolist() for ids in truth],
        "predicted": [labels[row].tolist() for row in predictions.predicted],
        **_group_column(predictions),
    }
    if not predictions.has_own_thresholds:  # the run's are in its folder
        return columns, names, predictions.probs
    numbers = np.hstack([predictions.probs, cast("np.ndarray", predictions.thresholds)])
    return columns, [*names, *(f"{THRESHOLD}{label}" for label in classes)], numbers


def _group_column(predictions: Predictions) -> dict[str, np.ndarray]:
    return {} if predictions.groups is None else {GROUP: predictions.groups}


def predictions_of(file: Path, labels: Sequence[str], thresholds: np.ndarray | None) -> Predictions:
    """Return the predictions of a labelled split's file, bit for bit; the same errors as `from_parquet`'s.

    thresholds: with several labels the run's, float64 [C], used if the file has none of its own; else None.
    """
    names = [f"{PROB}{label}" for label in labels]
    (ids, label_ids, group_ids), probs = from_parquet(file, ["id", "label_id"], names, optional=[GROUP])
    groups = None if group_ids is None else numbered(group_ids.to_numpy())
    if thresholds is None:
        return Predictions(ids.to_pylist(), label_ids.to_numpy(), probs, groups=groups)
    truth = np.zeros(probs.shape, dtype=np.int64)
    for row, own in enumerate(label_ids.to_pylist()):
        truth[row, own] = 1
    with suppress(KeyError):
        _, thresholds = from_parquet(file, ["id"], [f"{THRESHOLD}{label}" for label in labels])
    return Predictions(ids.to_pylist(), truth, probs, thresholds, groups)


def to_parquet(columns: Mapping[str, Any], names: Sequence[str], probs: np.ndarray) -> bytes:
    """Return a file of N rows: the columns, and one per name with its probabilities, float64 [N, C]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({**columns, **{name: probs[:, i] for i, name in enumerate(names)}}), buffer)
    return buffer.getvalue().to_pybytes()


def from_parquet(
    file: Path | BinaryIO, columns: Sequence[str], names: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> tuple[list[Any], np.ndarray]:
    """Return the values of each column, None for a missing optional one, and the probabilities of the names (by default
    all other columns), float64 [N, C].

    OSError if the file cannot be read, KeyError if it lacks a column, ValueError if it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        names = [name for name in table.column_names if name not in columns] if names is None else names
        values = [*(table[c] for c in columns), *(table[c] if c in table.column_names else None for c in optional)]
        return values, np.stack([table[name].to_numpy() for name in names], axis=1)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


def save_unlabelled(
    folder: Path, ids: Sequence[str], probs: np.ndarray, labels: Sequence[Label], thresholds: np.ndarray | None = None
) -> None:
    """Write the predictions, float64 [N, C], atomically, creating the folder. RunError if that fails.

    thresholds: for several labels, float64 [C]; then `predicted` is a list of labels.
    """
    with reported(folder, "made"):
        folder.mkdir(parents=True, exist_ok=True)
    names = np.array(labels, dtype=object)
    if thresholds is None:
        predicted = names[probs.argmax(axis=1)]
    else:
        predicted = [names[of_row].tolist() for of_row in probs >= thresholds]
    columns = {"id": list(ids), "predicted": predicted}
    write_atomically(folder / _FILE, to_parquet(columns, [f"{PROB}{label}" for label in labels], probs))


def load_unlabelled(folder: Path, ids: Sequence[str], labels: Sequence[str]) -> np.ndarray | None:
    """Return the saved probabilities, float64 [N, C]; None if there are none for these rows, or they are damaged."""
    try:
        (saved,), probs = from_parquet(folder / _FILE, ["id"], [f"{PROB}{label}" for label in labels])
    except (KeyError, OSError, ValueError):
        return None
    return probs if saved.to_pylist() == list(ids) else None
