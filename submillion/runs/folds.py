"""What a training in folds writes next to its runs: `folds.json`, the pooled predictions, the labels.

Each training and validation row is predicted by the run that held it out as test. The folder holds the folds' runs,
ordinary ones; everything here can be rebuilt from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from submillion import config
from submillion.config import Config
from submillion.errors import RunError
from submillion.judging.metrics import Predictions, Score
from submillion.runs.files import read_json
from submillion.runs.folder import Run
from submillion.runs.records import dumps

FORMAT = 1  # of folds.json; raised when an older version could no longer read it
FILE = "folds.json"
_POOLED = "folds"  # predictions-folds.parquet
_AGAIN = "run `submillion train --folds` with the same settings again: it trains only what is not finished"


@dataclass(frozen=True)
class FoldRecord:
    """A fold: the name of its run's folder, and the scores of the rows that it held out."""

    run: str
    scores: dict[str, Score]


@dataclass(frozen=True, kw_only=True)
class FoldsRecord:
    """A training in folds. fingerprint: of the splits of `of_all_rows` · scores: of all rows, each by the run that held
    it out, by the metric reported first too · folds: in their order · notes: the runs' warnings about their rows."""

    format: int
    settings: dict[str, Any]
    fingerprint: str
    scores: dict[str, Score]
    folds: tuple[FoldRecord, ...]
    notes: tuple[str, ...]


def of_all_rows(settings: Config, n_folds: int) -> Config:
    """Return the settings of the first fold without `data.train_rows`: its three splits hold the rows of all folds."""
    return config.changed(settings, {"data.fold": f"1/{n_folds}", "data.train_rows": None})


def write(folder: Path, record: FoldsRecord, predictions: Predictions, classes: list[Any]) -> None:
    """Write the pooled results; `folds.json` comes last and makes the folder one of folds."""
    place = Run(folder)
    place.write_json("labels.json", classes)
    place.save_predictions(_POOLED, predictions)
    place.write(FILE, dumps(TypeAdapter(FoldsRecord).dump_python(record, mode="json"), indent=2) + "\n")


def is_folds(folder: Path) -> bool:
    """Say whether a folder holds a finished training in folds."""
    return (folder / FILE).is_file()


def inside(out: Path | str) -> list[Path]:
    """Return the folders of finished trainings in folds in a folder of runs, by name."""
    return sorted(file.parent for file in Path(out).expanduser().glob(f"*/{FILE}") if file.is_file())


def read(folder: Path) -> FoldsRecord:
    """Return the record of a folder; RunError if it is missing, damaged, or of a newer version."""
    if not is_folds(folder):
        raise RunError(f"{folder / FILE} is missing: the folder is not one of folds, or not all are trained; {_AGAIN}")
    content = read_json(folder / FILE)
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise RunError(f"{folder / FILE} has format {version}; this version reads {FORMAT}: update submillion")
    try:
        return TypeAdapter(FoldsRecord).validate_python(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]]
        raise RunError(f"{folder / FILE} is damaged ({'; '.join(problems)}): {_AGAIN}") from None


def pooled(folder: Path) -> tuple[Predictions, tuple[str, ...]]:
    """Return the pooled predictions and the labels; RunError if they are missing or damaged."""
    place = Run(folder)
    return place.load_predictions(_POOLED), place.labels()
