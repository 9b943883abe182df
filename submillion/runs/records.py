"""The records of a training and their lines in `metrics.jsonl`.

One JSON object a line, strict JSON: a number that is not finite is written as null.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from submillion.judging.metrics import Score


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step: its number (from 1), epochs passed, mean loss of its rows, learning rate of the adapters,
    real tokens and seconds since the last record (the first includes all work before it, evaluations excluded)."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    tokens: int
    seconds: float
    kind: Literal["step"] = "step"


@dataclass(frozen=True)
class EvalRecord:
    """One evaluation on the validation split after `step` steps.

    loss is the validation split's, evaluation_s the seconds it took (not part of seconds), scores are
    `metrics.score`'s, best says whether no earlier evaluation was as good. right says which rows were right, packed by
    `packed_rows`, losses each row's scaled log loss, by `packed_losses`; None in folders from before they were noted.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    tokens: int
    seconds: float
    evaluation_s: float
    scores: dict[str, Score]
    best: bool
    kind: Literal["eval"] = "eval"
    right: str | None = None
    losses: str | None = None


Record = StepRecord | EvalRecord


@dataclass(frozen=True)
class Stopped:
    """A training that `by` ended after `step` of its n_steps planned steps."""

    step: int
    n_steps: int
    by: Literal["watch"] = "watch"

    def __str__(self) -> str:
        """Return it as a sentence, without the full stop."""
        return f"its watcher stopped the training after step {self.step:,} of {self.n_steps:,}"


def to_line(record: Record) -> str:
    r"""Return the record as one line of JSON, newline included; scores are among the other keys.

    >>> to_line(StepRecord(1, 0.5, float("nan"), 1e-4, 900, 0.25))
    '{"kind": "step", "step": 1, "epoch": 0.5, "loss": null, "learning_rate": 0.0001, "tokens": 900, "seconds": 0.25}\n'
    """
    values = asdict(record)
    scores = values.pop("scores", {})
    for key in ("right", "losses"):
        if values.get(key, "") is None:
            del values[key]
    return dumps({"kind": values.pop("kind"), **values, **scores}) + "\n"


def from_line(line: str | bytes) -> Record:
    """Return the record of a line; null numbers become nan. ValueError, KeyError or TypeError if it is not a record."""
    values = json.loads(line)
    kind = values.pop("kind")
    if kind not in ("step", "eval"):
        raise ValueError(f"kind is {kind!r}")
    if kind == "step":
        return StepRecord(**_numbers(values))
    scores = {key: score_from(value) for key, value in values.items() if isinstance(value, dict)}
    return EvalRecord(**_numbers({key: value for key, value in values.items() if key not in scores}), scores=scores)


def packed_rows(right: np.ndarray) -> str:
    """Return bool [B] as text: a bit per row, base64.

    >>> unpacked_rows(packed_rows(np.array([True, False, True]))).tolist()
    [True, False, True, False, False, False, False, False]
    """
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked_rows(text: str) -> np.ndarray:
    """Return the rows of `packed_rows`, padded with False to whole bytes."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8)).astype(bool)


def packed_losses(losses: np.ndarray) -> str:
    """Return float [B] as text: two bytes per row, base64. A loss is rounded by a 2,000th of itself at most.

    >>> unpacked_losses(packed_losses(np.array([0.5, 0.125]))).tolist()
    [0.5, 0.125]
    """
    return base64.b64encode(losses.astype("<f2").tobytes()).decode()


def unpacked_losses(text: str) -> np.ndarray:
    """Return the rows of `packed_losses`, float64 [B]."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float64)


def noted(evaluations: Sequence[EvalRecord], n_rows: int, key: str) -> np.ndarray | None:
    """Return each evaluation's values for the validation rows, float32 [K, B], whose mean is the score of this key, or
    minus that of a loss; None if they were not noted, or the score is no such mean."""
    if key in ("accuracy", "subset_accuracy"):
        rows = [unpacked_rows(each.right)[:n_rows] for each in evaluations if each.right is not None]
    elif key == "scaled_log_loss":
        rows = [-unpacked_losses(each.losses) for each in evaluations if each.losses is not None]
    else:
        return None
    if not rows or len(rows) < len(evaluations) or any(len(each) != n_rows for each in rows):
        return None  # for other rows than these: a damaged line
    return np.stack(rows).astype(np.float32)


def dumps(value: Any, indent: int | None = None) -> str:
    """Return strict JSON in Unicode: nan and infinities become null."""
    return json.dumps(_strict(value), allow_nan=False, ensure_ascii=False, indent=indent)


def score_from(values: dict[str, Any]) -> Score:
    """Return the score of its JSON object; TypeError if keys are missing or unknown."""
    return Score(**_numbers(values))


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in values.items()}


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return value
