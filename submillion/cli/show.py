"""How scores and run folders look in a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from submillion.judging.metrics import Score

if TYPE_CHECKING:
    from submillion.prediction import Evaluation
    from submillion.runs import Run

_WHAT = {
    "config.yaml": "every setting of the run",
    "plan.json": "where the budget went",
    "environment.json": "device, precision, versions, command",
    "labels.json": "label names in the order of their numbers",
    "data.json": "rows, splits, fingerprints",
    "trained-on.npy": "hashes of the training texts: evaluate tells which rows were seen",
    "teachers.json": "the runs that taught this one",
    "metrics.jsonl": "a record a step and an evaluation",
    "tracking.json": "the names under which trackers know the run",
    "adapter": "opens with plain transformers + peft",
    "predictions-validation.parquet": "each row's probabilities",
    "predictions-test.parquet": "each row's probabilities",
    "stopped.json": "where the watcher ended the training",
    "scores.json": "scores with 95 % intervals",
    "cost.json": "seconds of each phase, peak memory",
    "report.html": "what came out, to be opened in a browser",
    "report.md": "the same as Markdown, with figures/",
    "report.json": "the same as numbers",
    "exports": "the run as files for other programs, each checked against it",
    "DONE": "the run is complete: hashes of its files",
}


def score_text(score: Score) -> str:
    """Return a score with its interval and rows.

    >>> score_text(Score(0.9, 0.88, 0.92, 500))
    '0.9000  [0.8800, 0.9200]  500 rows'
    """
    return f"{score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]  {score.n:,} rows"


def score_table(scores: Mapping[str, Score]) -> list[str]:
    """Return a line a score."""
    return [f"{name.replace('_', ' '):<10} {score_text(score)}" for name, score in scores.items()]


def score_lines(run: Run, is_chosen: bool = False) -> list[str]:
    """Return a run's lines about its accuracy: test if it was opened, and validation with what was chosen on it.

    is_chosen: among settings, by their validation scores.
    """
    lines = []
    for split, caveat in (("test", "95 % interval"), ("validation", _selection(run, is_chosen))):
        scores = run.scores().get(split)
        if scores is not None:
            lines.append(f"{split + ' accuracy':<20}  {score_text(scores['accuracy'])}  ({caveat})")
    return lines


def _selection(run: Run, is_chosen: bool) -> str:
    n = len(run.evaluations())
    if n > 1 or is_chosen:
        return f"after selection: the {'setting' if is_chosen else 'checkpoint'} was chosen on it"
    return "95 % interval; not selected on: one evaluation" if n else "95 % interval"


def evaluation_values(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as --json prints it: a score a key, rows that were trained on, warnings."""
    scores = {name: vars(score) for name, score in evaluation.scores.items()}
    return scores | {"n_trained_on": evaluation.n_trained_on, "warnings": list(evaluation.warnings)}


def warning_lines(warnings: Sequence[str]) -> list[str]:
    """Return the lines of warnings below a result."""
    return ["", *(f"warning: {warning}" for warning in warnings)] if warnings else []


def program() -> str:
    """Return what to type to start this program: its name, or its path where it is on no PATH."""
    called = sys.argv[0]
    return called if called.endswith("/submillion") and not shutil.which("submillion") else "submillion"


def files(run: Run) -> list[str]:
    """Return a line a file of the run folder, with what it holds."""
    return [f"  {name:<32} {what}" for name, what in _WHAT.items() if (run.path / name).exists()]
