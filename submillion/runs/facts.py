"""A run in one line, for lists: what it is, how far it got, what it scored; a damaged one too, with the damage."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from submillion.errors import SubmillionError
from submillion.judging.metrics import key_of
from submillion.runs.finding import load
from submillion.runs.folder import Run

COLUMNS = ("run", "state", "model", "trainable_params", "metric", "validation", "test", "minutes", "date")
KEYS = (*COLUMNS, "validation_accuracy", "test_accuracy")


def facts(run: Run) -> dict[str, Any]:
    """Return a run's line in a list, by `KEYS`: `examined`, with any damage in the state."""
    values = examined(run)
    why = values.pop("why")
    return values | {"state": f"damaged: {why}"} if why else values


def examined(run: Run) -> dict[str, Any]:
    """Return what is known of a run, by `KEYS`, and why it is damaged; None for what is not known yet.

    state: done, running, interrupted, empty or damaged · why: empty unless it is damaged · metric: the key of the score
    that is reported first · validation, test: that score, and validation_accuracy, test_accuracy if rows have one
    label, each {value, low, high, n}. Hashes are not checked.
    """
    began = datetime.fromtimestamp((run.path / "config.yaml").stat().st_mtime).astimezone()
    values: dict[str, Any] = dict.fromkeys(KEYS)
    values |= {"run": run.name, "date": began.isoformat(timespec="minutes")}
    values |= {"state": "running" if run.is_locked else run.state, "why": ""}
    for step in (_add_facts, _refuse_damaged):
        try:
            step(run, values)
        except SubmillionError as error:
            values |= {"state": "damaged", "why": error.problems[0]}
        except (KeyError, TypeError, ValueError) as error:
            values |= {"state": "damaged", "why": f"{type(error).__name__}: {error}"}
    return values


def _add_facts(run: Run, values: dict[str, Any]) -> None:
    values["model"] = run.config().model.name
    metric = values["metric"] = key_of(run.metric())
    values["trainable_params"] = run.read_json("plan.json")["total"] if (run.path / "plan.json").exists() else None
    records = run.records()
    values["minutes"] = round(sum(r.seconds + getattr(r, "evaluation_s", 0.0) for r in records) / 60, 2)
    for split, scores in (run.scores() if (run.path / "scores.json").exists() else {}).items():
        values[split] = vars(scores[metric])
        if "micro_f1" not in scores:  # several labels have no accuracy
            values[f"{split}_accuracy"] = vars(scores["accuracy"])


def _refuse_damaged(run: Run, _: dict[str, Any]) -> None:
    """Raise the error with which other commands refuse the run, so that a list never calls a damaged one done."""
    run.stopped()
    if run.is_done:
        load(run)
    elif (run.path / "labels.json").exists():
        run.labels()
