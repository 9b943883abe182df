"""What the list shows of each run and study; a damaged one is listed with the damage.

Finished runs are read once: 14 ms a run add up in a folder of hundreds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from submillion import config, runs
from submillion.config import NOT_HASHED, Config
from submillion.errors import SubmillionError
from submillion.runs import EvalRecord, Run
from submillion.runs.pace import pace
from submillion.serving.folders import Folder
from submillion.text import duration, interval

Values = dict[str, Any]
_NUMBERS = ("trainable_params", "validation_accuracy", "test_accuracy", "minutes")
_WHY = {
    "running": "a process is training it now",
    "interrupted": "it was stopped; `submillion train --config CONFIG` goes on where it stopped",
    "empty": "nothing was trained yet; `submillion train --config CONFIG` trains it",
}


class Listing:
    """The rows of one folder; finished runs are kept until their files change."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._kept: dict[tuple[Path, int, int], Values] = {}

    def values(self) -> Values:
        """Return the folder's runs and studies as JSON holds them."""
        studies = [_study(path) for path in self._folder.studies()]
        rows = [self._row(run) for run in self._folder.runs()]
        for row in rows:
            row["studies"] = [study["name"] for study in studies if row["run"] in study["runs"]]
        return {"folder": str(self._folder.path), "runs": rows, "studies": studies}

    def _row(self, run: Run) -> Values:
        try:
            stamp = (run.path, (run.path / "DONE").stat().st_mtime_ns, run.path.stat().st_mtime_ns)
        except OSError:
            return _row(run)
        if stamp not in self._kept:
            self._kept[stamp] = _row(run)
        return dict(self._kept[stamp])


def state_of(run: Run) -> tuple[str, str]:
    """Return a run's state as the list has it, and why."""
    row = _row(run)
    return str(row["state"]), str(row["why"])


def _row(run: Run) -> Values:
    """A run's facts, its state in a word and why, its settings, and what else there is to look at."""
    row: Values
    try:
        row = runs.examined(run)
    except OSError as error:  # removed while it was read
        row = dict.fromkeys(runs.COLUMNS) | {"run": run.name, "state": "damaged", "why": error.strerror}
    row |= _state(run, str(row["state"]), str(row["why"])) | _without_oddities(row)
    row |= _training(run) if row["why"] == _WHY["running"] else {"is_running": False, "step": None}
    row["has_report"] = (run.path / "report.html").is_file()
    row["settings"] = _settings(run)
    return row


def _state(run: Run, state: str, why: str) -> Values:
    """A run's state as the list has it, and why."""
    if state == "damaged":
        return {"state": "damaged", "why": why}
    if state == "done":
        try:
            runs.load(run.path)
        except SubmillionError as error:
            return {"state": "damaged", "why": error.problems[0]}
        return {"state": "finished", "why": ""}
    return {"state": "unfinished", "why": _WHY[state].replace("CONFIG", str(run.path / "config.yaml"))}


def _training(run: Run) -> Values:
    """How far a run is that is being trained, in a sentence and by its last step."""
    records = run.records()
    found = pace(run.config().train, records)
    said = [_WHY["running"]]
    if found.seconds_left is not None and found.n_steps is not None:
        left = duration(found.seconds_left, is_rough=True)
        said.append(f"step {found.step:,} of {found.n_steps:,}, about {left} left")
    if evaluations := [record for record in records if isinstance(record, EvalRecord)]:
        last = evaluations[-1]
        said.append(f"validation accuracy {interval(last.scores['accuracy'])} at step {last.step:,}")
    return {"is_running": True, "step": found.step, "why": "; ".join(said)}


def _without_oddities(row: Values) -> Values:
    """What replaces values that are not numbers, so that one edited file cannot break the list."""
    odd = [key for key in _NUMBERS if row[key] is not None and not _is_number(row[key])]
    if not odd:
        return {}
    return dict.fromkeys(odd) | {"state": "damaged", "why": f"its files hold no number for {', '.join(odd)}"}


def _is_number(value: Any) -> bool:
    """Say whether a number, or each of a score's, is finite."""
    if isinstance(value, dict):
        return all(_is_number(value.get(key)) for key in ("value", "low", "high"))
    return isinstance(value, (int, float)) and math.isfinite(value)


def _settings(run: Run) -> dict[str, str]:
    """What is not the default of what decides a run."""
    try:
        own, usual = (config.flat(_deciding(each)) for each in (run.config(), Config()))
    except SubmillionError:
        return {}
    return {key: value for key, value in own.items() if usual.get(key) != value}


def _deciding(settings: Config) -> Values:
    return settings.model_dump(mode="json", exclude=set(NOT_HASHED))


def _study(path: Path) -> Values:
    """A study from its summary.json, which a running or stopped one may not have yet."""
    found: Values = {
        "name": path.name,
        "kind": None,
        "runs": [],
        "n_trials": None,
        "n_done": None,
        "recommended": None,
        "accuracy": None,
        "notes": [],
        "has_report": (path / "summary.json").is_file(),
    }
    running = Run(path).is_locked
    try:
        if (path / "summary.json").is_file():
            found |= _summary(Run(path).read_json("summary.json"))
        elif not running:
            found |= {"state": "unfinished", "why": "it was stopped before its first trial ended; start it again"}
    except SubmillionError as error:
        found |= {"state": "damaged", "why": error.problems[0]}
    except (AttributeError, KeyError, TypeError) as error:
        found |= {
            "state": "damaged",
            "why": f"summary.json is not what a sweep writes ({type(error).__name__}: {error})",
        }
    if running:
        found |= {"state": "unfinished", "why": "a process is running it now"}
    return found


def _summary(values: Values) -> Values:
    trials, finished = values["trials"], values["finished"]
    found: Values = {
        "kind": values.get("kind"),
        "runs": sorted({name for trial in trials for name in trial["runs"]}),
        "n_trials": len(trials),
        "n_done": sum(trial["state"] == "done" for trial in trials),
        "state": "finished" if finished else "unfinished",
        "why": "" if finished else "it was stopped; the same command goes on where it stopped",
    }
    if finished:
        scores = values["scores"]
        split = "test" if "test" in scores else "validation"
        if not _is_number(scores[split]["accuracy"]):
            raise TypeError("its accuracy is not a number")
        found |= {
            "recommended": Path(values["recommended"]).name,
            "accuracy": {"split": split, **scores[split]["accuracy"]},
            "notes": values["notes"],
        }
    return found
