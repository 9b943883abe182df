"""What the list shows for each run and study; a damaged one is listed with its damage, and hides no other.

Finished runs are read once: 14 ms per run add up in a folder of hundreds.
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

from submillion import config, runs
from submillion.config import NOT_HASHED, Config
from submillion.errors import RunError, SubmillionError
from submillion.judging.metrics import NAMES, leading
from submillion.runs import EvalRecord, Run, study
from submillion.runs.pace import pace
from submillion.serving.folders import Folder
from submillion.text import duration, interval

Values = dict[str, Any]
_NUMBERS = ("trainable_params", "validation", "test", "validation_accuracy", "test_accuracy", "minutes")
_WHY = {
    "running": "a process is training it now",
    "interrupted": "it was stopped; `submillion train --config CONFIG` resumes it",
    "empty": "nothing was trained yet; `submillion train --config CONFIG` trains it",
}
_AT_REST: Values = {"is_running": False, "step": None}
_NO_STUDY: Values = {
    "kind": None,
    "runs": [],
    "n_trials": None,
    "n_done": None,
    "recommended": None,
    "score": None,
    "notes": [],
}


class Listing:
    """The rows of one folder; finished runs are kept until their files change."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._kept: dict[Path, tuple[tuple[int, int], Values]] = {}

    def values(self) -> Values:
        """Return the folder's runs and studies as JSON values."""
        studies = [_study(path) for path in self._folder.studies()]
        rows = self._rows()
        for row in rows:
            row["studies"] = [study["name"] for study in studies if row["run"] in study["runs"]]
        return {"folder": _printable(str(self._folder.path)), "runs": rows, "studies": studies}

    def models(self) -> list[Values]:
        """Return the finished runs as JSON values: their labels, whether they take pairs, what they are."""
        return [
            {
                "run": row["run"],
                "labels": row["labels"],
                "has_several_labels": row["has_several_labels"],
                "takes_pairs": "data.text_pair" in row["settings"],
                "model": row["model"],
                "trainable_params": row["trainable_params"],
            }
            for row in self._rows()
            if row["state"] == "finished"
        ]

    def _rows(self) -> list[Values]:
        folder_runs = self._folder.runs()
        self._kept = {run.path: self._kept[run.path] for run in folder_runs if run.path in self._kept}
        return [self._row(run) for run in folder_runs]

    def _row(self, run: Run) -> Values:
        try:
            stamp = (run.path / "DONE").stat().st_mtime_ns, run.path.stat().st_mtime_ns
        except OSError:
            return _row(run)
        kept_stamp, row = self._kept.get(run.path, (None, {}))
        if kept_stamp != stamp:
            row = _row(run)
            self._kept[run.path] = stamp, row
        return dict(row)


def state_of(run: Run) -> tuple[str, str]:
    """Return a run's state as in the list, and why."""
    row = _row(run)
    return str(row["state"]), str(row["why"])


def _row(run: Run) -> Values:
    """Return a run's facts, its state in a word and why, its labels and settings, and what else there is to see."""
    try:
        _refuse_odd_files(run)
        row = runs.examined(run)
        _refuse_odd_numbers(row)
        row |= _state(run, str(row["state"]), str(row["why"]))
        row |= _training(run) if row["why"] == _WHY["running"] else _AT_REST
        row["settings"] = {} if row["state"] == "damaged" else _settings(run)
        row["labels"] = run.classes() if row["state"] == "finished" else ()
        row["has_several_labels"] = row["state"] == "finished" and run.has_several()
        _refuse_odd_text(row)
    except Exception as error:  # whatever it is: one run's files must not hide the others
        why = error.problems[0] if isinstance(error, SubmillionError) else f"{type(error).__name__}: {error}"
        row = dict.fromkeys(runs.KEYS) | {"state": "damaged", "why": _printable(why), "settings": {}, "labels": ()}
        row["has_several_labels"] = False
        row |= _AT_REST
    row |= {"run": run.name, "metric_name": NAMES.get(str(row["metric"]))}
    row["has_report"] = (run.path / "report.html").is_file()
    return row


def _state(run: Run, state: str, why: str) -> Values:
    """Return a run's state as in the list, and why."""
    if state == "damaged":
        return {"state": "damaged", "why": why}
    if state == "done":
        runs.load(run.path)
        return {"state": "finished", "why": ""}
    return {"state": "unfinished", "why": _WHY[state].replace("CONFIG", str(run.path / "config.yaml"))}


def _training(run: Run) -> Values:
    """Return the progress of a run in training, in a sentence and as its last step."""
    records = run.records()
    progress = pace(run.config().train, records)
    parts = [_WHY["running"]]
    if progress.seconds_left is not None and progress.n_steps is not None:
        left = duration(progress.seconds_left, is_rough=True)
        parts.append(f"step {progress.step:,} of {progress.n_steps:,}, about {left} left")
    if evaluations := [record for record in records if isinstance(record, EvalRecord)]:
        last = evaluations[-1]
        key, score = leading(last.scores)
        parts.append(f"validation {NAMES[key]} {interval(score)} at step {last.step:,}")
    return {"is_running": True, "step": progress.step, "why": "; ".join(parts)}


def _refuse_odd_files(run: Run) -> None:
    """Raise a RunError for files whose reading would never end: pipes, devices."""
    for path in run.path.iterdir():
        if path.exists() and not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
            raise RunError(f"{path} is neither a file nor a folder: remove it")


def _refuse_odd_numbers(row: Values) -> None:
    odd = [key for key in _NUMBERS if row[key] is not None and not _is_number(row[key])]
    if odd:
        raise RunError(f"its files hold no number for {', '.join(odd)}: train it again")


def _refuse_odd_text(row: Values) -> None:
    """Raise a RunError for text that is not Unicode, which JSON in UTF-8 cannot hold."""
    try:
        json.dumps(row, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = repr(error.object[max(0, error.start - 20) : error.end])
        raise RunError(f"its files hold half a character (a lone surrogate), at {half}: train it again") from None


def _is_number(value: Any) -> bool:
    """Return whether a number, or each of a score's, is finite."""
    if isinstance(value, dict):
        return all(_is_number(value.get(key)) for key in ("value", "low", "high"))
    return isinstance(value, (int, float)) and math.isfinite(value)


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _settings(run: Run) -> dict[str, str]:
    """Return the non-default settings among those that decide a run."""
    settings, defaults = (
        config.flat(each.model_dump(mode="json", exclude=set(NOT_HASHED))) for each in (run.config(), Config())
    )
    return {key: value for key, value in settings.items() if defaults.get(key) != value}


def _study(path: Path) -> Values:
    """Return a study from its record, which a running or stopped one may lack."""
    row = _NO_STUDY | {
        "name": _printable(path.name),
        "has_report": (path / "summary.json").is_file(),
    }
    running = Run(path).is_locked
    if not (path / "summary.json").exists():
        why = "it was stopped before its first trial ended; start it again"
        row |= {"state": "unfinished", "why": why}
    else:
        try:
            record = _recorded(study.read(path))
            _refuse_odd_text(record)
            row |= record
        except Exception as error:  # as for runs: one study must not hide the others
            why = error.problems[0] if isinstance(error, SubmillionError) else f"{type(error).__name__}: {error}"
            row |= {"state": "damaged", "why": _printable(why)}
    if running:
        row |= {"state": "unfinished", "why": "a process is running it now"}
    return row


def _recorded(record: study.StudyRecord) -> Values:
    row: Values = {
        "kind": record.kind,
        "runs": sorted({name for trial in record.trials for name in trial.runs}),
        "n_trials": len(record.trials),
        "n_done": len(record.done),
        "state": "finished" if record.finished else "unfinished",
        "why": "" if record.finished else "it was stopped; the same command resumes it",
    }
    if record.finished and record.scores is not None:
        split = "test" if "test" in record.scores else "validation"
        score = {"split": split, "name": record.metric_name, **vars(record.scores[split][record.metric])}
        row |= {"recommended": record.recommended_run, "score": score, "notes": list(record.notes)}
    return row
