"""A run's predictions of rows without labels, kept in a folder of the run that `DONE` does not seal.

`<run>/shift/<name>/predictions.parquet`: id, predicted, and prob_<label> per label. Whose rows they are is in the name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from submillion.runs.files import reported, write_atomically

if TYPE_CHECKING:
    from submillion.data import Label

_FILE, _PROB = "predictions.parquet", "prob_"


def save_unlabelled(folder: Path, ids: Sequence[str], probs: np.ndarray, labels: Sequence[Label]) -> None:
    """Write the predictions, float64 [N, C], atomically; the folder is made. RunError if that fails."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reported(folder, "made"):
        folder.mkdir(parents=True, exist_ok=True)
    predicted = np.array(labels, dtype=object)[probs.argmax(axis=1)]
    columns = {"id": list(ids), "predicted": predicted}
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns | {f"{_PROB}{label}": probs[:, i] for i, label in enumerate(labels)}), buffer)
    write_atomically(folder / _FILE, buffer.getvalue().to_pybytes())


def load_unlabelled(folder: Path, ids: Sequence[str], labels: Sequence[str]) -> np.ndarray | None:
    """Return the saved probabilities, float64 [N, C]; None where there are none of these rows, or they are damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (folder / _FILE).exists():
        return None
    try:
        table = pq.read_table(folder / _FILE)
        if table["id"].to_pylist() != list(ids):
            return None
        return np.stack([table[f"{_PROB}{label}"].to_numpy() for label in labels], axis=1)
    except (pa.ArrowException, KeyError, OSError):
        return None
