"""One run folder: what is written into it, in which order, and how it is read back.

`config.yaml` comes first and makes it a run folder; `DONE` comes last and seals the others with their hashes.
Which folders there are, and whether one may be used, is left to `finding`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from submillion import config
from submillion.config import Config, Metric
from submillion.data.sources import MEMORY
from submillion.errors import RunError, SubmillionError, command
from submillion.judging.comparison import Noted
from submillion.judging.confidence import n_choices
from submillion.judging.metrics import Predictions, Score, deciding_key, key_of, temperature, usual_metric
from submillion.runs.files import (
    locked,
    read_bytes,
    read_json,
    remove_abandoned,
    reported,
    sha256,
    take_lock,
    write_atomically,
)
from submillion.runs.predictions import columns_of, predictions_of, to_parquet
from submillion.runs.records import EvalRecord, Record, Stopped, dumps, from_line, noted, score_from, to_line

if TYPE_CHECKING:
    from submillion.data import Label

FORMAT = 1  # of the run folder; raised when an older version could no longer read it
State = Literal["done", "interrupted", "empty"]
_STOPPED, _THRESHOLDS, _CALIBRATION = "stopped.json", "thresholds.json", "calibration.json"
UNSEALED = ("report.json", "README.md", "tracking.json")  # rewritten later, or of no use to later work


@dataclass(frozen=True)
class Run:
    """A run folder, `<out>/<name>-<hash8>/`."""

    path: Path

    @property
    def name(self) -> str:
        """Return the folder's name, its hash included."""
        return self.path.name

    @property
    def is_done(self) -> bool:
        """Say whether the run is finished."""
        return (self.path / "DONE").exists()

    @property
    def state(self) -> State:
        """Return done, interrupted (there are records or checkpoints to resume from) or empty."""
        if self.is_done:
            return "done"
        began = _size(self._metrics) > 0 or any((self.path / "checkpoints").glob("*.safetensors"))
        return "interrupted" if began else "empty"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing the run; RunError if one does already.

        The system frees the lock when the process ends, however it ends. A killed one's partial files are removed.
        """
        with locked(self.path):
            remove_abandoned(self.path)
            yield

    @property
    def is_locked(self) -> bool:
        """Say whether a process is writing the run now."""
        try:
            with open(self.path / ".lock", "rb") as file:
                return not take_lock(file)
        except OSError:
            return False

    def write(self, name: str, text: str) -> None:
        """Write one of the run's text files, atomically."""
        write_atomically(self.path / name, text)

    def write_json(self, name: str, value: Any) -> None:
        """Write one of the run's JSON files, atomically; numbers that are not finite become null."""
        self.write(name, dumps(value, indent=2) + "\n")

    @property
    def is_of_memory(self) -> bool:
        """Say whether the run's rows were in memory, so that only a call in Python resumes it."""
        try:
            return self.config().data.source == MEMORY
        except SubmillionError:
            return False

    @property
    def call_again(self) -> str:
        """Return the Python call that resumes a run on rows in memory."""
        return f"submillion.train({str(self.path / 'config.yaml')!r}, rows)"

    def refuse_unfinished(self) -> None:
        """Raise a RunError if the run is not finished; it says how to resume it."""
        if not self.is_done and self.is_of_memory:
            raise RunError(f"{self.path} is not finished: {self.call_again} resumes it, given the same rows again")
        if not self.is_done:
            raise RunError(
                f"{self.path} is not finished: rerun the command that started it to resume "
                f"(`{command('train', '--config', self.path / 'config.yaml')}`, or the same call of submillion.train)"
            )

    def read_json(self, name: str) -> Any:
        """Return the value of one of the run's JSON files; RunError if it is not there yet, missing or damaged."""
        if not (self.path / name).exists():
            self.refuse_unfinished()
        return read_json(self.path / name)

    def environment(self) -> dict[str, Any] | None:
        """Return what `environment.json` says; None before it is written."""
        return self.read_json("environment.json") if (self.path / "environment.json").exists() else None

    def config(self) -> Config:
        """Return the run's resolved config; ConfigError if it is damaged or of a newer version."""
        return config.load(self.path / "config.yaml")

    def labels(self) -> tuple[str, ...]:
        """Return the label names, in the order of their ids."""
        return tuple(map(str, self.classes()))

    def classes(self) -> tuple[Label, ...]:
        """Return the labels as the training rows had them, in the order of their ids.

        All are text, whole numbers or truth values; in folders from before the type was noted, text.
        """
        content = self.read_json("labels.json")
        labels = content.get("names") if isinstance(content, dict) else content
        kinds = {type(label) for label in labels} if isinstance(labels, list) else set()
        if not isinstance(labels, list) or kinds not in ({str}, {int}, {bool}):
            raise RunError(f"{self.path / 'labels.json'} is damaged: it holds no list of names")
        return tuple(labels)

    def has_several(self) -> bool:
        """Say whether rows have several labels, each by itself."""
        return isinstance(self.read_json("labels.json"), dict)

    def write_labels(self, classes: Sequence[Label], has_several: bool) -> None:
        """Write `labels.json`: the labels in the order of their ids; several, in an object that says so."""
        self.write_json("labels.json", {"labels": "several", "names": [*classes]} if has_several else [*classes])

    def thresholds(self) -> np.ndarray | None:
        """Return the probability from which each of several labels is predicted, float64 [C]; None if rows have one.

        RunError if `thresholds.json` is missing or damaged.
        """
        if not self.has_several():
            return None
        values, labels = self.read_json(_THRESHOLDS), self.labels()
        if not isinstance(values, dict) or not all(isinstance(values.get(label), float) for label in labels):
            raise RunError(f"{self.path / _THRESHOLDS} is damaged: it has no number for each label")
        return np.array([values[label] for label in labels])

    def write_thresholds(self, thresholds: np.ndarray) -> None:
        """Write `thresholds.json`: label → probability, float64 [C]."""
        self.write_json(_THRESHOLDS, dict(zip(self.labels(), thresholds.tolist(), strict=True)))

    def temperature(self) -> float:
        """Return the divisor of logits that calibrates probabilities, fitted on the validation predictions; fitted
        now if an older folder lacks it. RunError if `calibration.json` is damaged."""
        if not (self.path / _CALIBRATION).exists():
            return temperature(self.load_predictions("validation"))
        values = self.read_json(_CALIBRATION)
        value = values.get("temperature") if isinstance(values, dict) else None
        if not isinstance(value, float) or value <= 0:
            raise RunError(f"{self.path / _CALIBRATION} is damaged: it has no temperature above 0")
        return value

    def write_temperature(self) -> None:
        """Write `calibration.json`: the temperature that fits the saved validation predictions best."""
        self.write_json(_CALIBRATION, {"temperature": temperature(self.load_predictions("validation"))})

    def metric(self) -> Metric:
        """Return the score that is reported first; runs from before that was a setting have the usual one."""
        return self.config().train.metric or usual_metric(self.has_several())

    def deciding(self) -> Metric:
        """Return the score that chose the checkpoint; `metric` if evaluations noted no losses yet."""
        train = self.config().train
        has_losses = any(record.losses is not None for record in self.evaluations())
        return train.deciding if train.decide is not None or has_losses else self.metric()

    def evaluated(self, n_rows: int, metric: Metric | None = None, decide: Metric | None = None) -> Noted | None:
        """Return what the evaluations noted of the saved validation rows; None if any of it was not noted.

        metric: by which rows are right; decide: by which settings are compared; None is the run's own.
        """
        evaluations, chose_by = self.evaluations(), self.deciding()
        keys = key_of(metric or self.metric()), deciding_key(chose_by), deciding_key(decide or chose_by)
        right, chose, decides = (noted(evaluations, n_rows, key) for key in keys)
        if right is None or chose is None or decides is None:
            return None
        return Noted(right, chose, decides, is_guarded=chose_by == "log-loss")

    def n_choices(self, validation: Predictions) -> float:
        """Return how many checkpoints might equally have been chosen on these saved rows, by `confidence.n_choices`;
        all of them if evaluations did not note the rows."""
        evaluations = self.evaluations()
        chose = noted(evaluations, len(validation.ids), deciding_key(self.deciding()))
        return float(max(len(evaluations), 1)) if chose is None else n_choices(chose, validation.groups)

    def append(self, record: Record) -> None:
        """Add a record to `metrics.jsonl`; it is with the operating system when this returns."""
        with reported(self._metrics, "written"), open(self._metrics, "ab") as file:
            file.write(to_line(record).encode())

    def records(self) -> list[Record]:
        """Return the records of `metrics.jsonl`; a last line that a crash cut short is left out."""
        return [record for record, _ in self._records()]

    def evaluations(self) -> list[EvalRecord]:
        """Return the records of evaluations; if there are several, the checkpoint was chosen among them."""
        return [record for record in self.records() if isinstance(record, EvalRecord)]

    def cut_back(self, step: int, evaluated_step: int) -> None:
        """Cut `metrics.jsonl` back to a checkpoint at `step`, so that repeated steps are in it once.

        Its last evaluation was at evaluated_step: later ones are cut too, as is a line that a crash left unfinished.
        """
        end = 0
        for record, line_end in self._records():
            if record.step > (evaluated_step if isinstance(record, EvalRecord) else step):
                break
            end = line_end
        if _size(self._metrics) > end:
            with reported(self._metrics, "cut"):
                os.truncate(self._metrics, end)

    def save_predictions(self, split: str, predictions: Predictions) -> None:
        """Write `predictions-<split>.parquet`: id, label, label_id, predicted (a label), and prob_<label> per label.

        With several labels all but id are lists; rows with thresholds of their own add threshold_<label>.
        """
        columns, names, values = columns_of(predictions, self.classes())
        write_atomically(self._predictions(split), to_parquet(columns, names, values))

    def load_predictions(self, split: str) -> Predictions:
        """Return saved predictions bit for bit; RunError if the file is missing, damaged or of other labels."""
        path, labels = self._predictions(split), self.labels()
        if not path.is_file():
            self.refuse_unfinished()
            raise RunError(f"{path}: no such file; the run has no predictions of its {split} split")
        try:
            return predictions_of(path, labels, self.thresholds())
        except (KeyError, ValueError, OSError) as error:
            other = ", or labels.json names different labels" if isinstance(error, KeyError) else ""
            raise RunError(f"{path} is damaged ({error}){other}: remove the run and train again") from None

    def write_scores(self, scores: Mapping[str, Mapping[str, Score]]) -> None:
        """Write `scores.json`: split → metric → value, low, high, n."""
        values = {split: {name: asdict(score) for name, score in named.items()} for split, named in scores.items()}
        self.write_json("scores.json", values)

    def scores(self) -> dict[str, dict[str, Score]]:
        """Return `scores.json`; RunError if it is missing or damaged."""
        values = self.read_json("scores.json")
        try:
            return {split: {name: score_from(s) for name, s in named.items()} for split, named in values.items()}
        except (AttributeError, TypeError):
            raise RunError(f"{self.path / 'scores.json'} is damaged: it holds no scores by split and name") from None

    def stopped(self) -> Stopped | None:
        """Return where the training was stopped before its last step; None if it was not. RunError if damaged."""
        if not (self.path / _STOPPED).exists():
            return None
        try:
            return Stopped(**self.read_json(_STOPPED))
        except TypeError:
            raise RunError(
                f"{self.path / _STOPPED} is damaged: restore it, or remove the run and train again"
            ) from None

    def write_stopped(self, stopped: Stopped) -> None:
        """Write `stopped.json`."""
        self.write_json(_STOPPED, asdict(stopped))

    def mark_done(self, unsealed: str | None = None) -> None:
        """Write `DONE`: the format, the version and the SHA-256 of each file that later work relies on.

        `unsealed` is left out: a file that is about to be replaced.
        """
        patterns = ("adapter/**/*", "*.json", "config.yaml", "metrics.jsonl", "*.npy", "predictions-*.parquet")
        files = sorted({file for pattern in patterns for file in self.path.glob(pattern) if file.is_file()})
        files = [file for file in files if file.name not in (*UNSEALED, unsealed)]
        hashes = {file.relative_to(self.path).as_posix(): sha256(file) for file in files}
        self.write_json("DONE", {"format": FORMAT, "submillion": version("submillion"), "files": hashes})

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def _predictions(self, split: str) -> Path:
        return self.path / f"predictions-{split}.parquet"

    def _records(self) -> Iterator[tuple[Record, int]]:
        """Each record with the byte at which its line ends."""
        if not self._metrics.exists():
            return
        content, end = read_bytes(self._metrics), 0
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            end += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                yield from_line(line), end
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise RunError(f"{self._metrics}, line {number}, is not a record: the file is damaged") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
