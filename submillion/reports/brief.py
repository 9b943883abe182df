"""What commands print about a finished run, in sections for the terminal: its scores, its files."""

from __future__ import annotations

from collections.abc import Mapping

from submillion.judging.metrics import NAMES, Score, leading
from submillion.reports.sections import Section, Table
from submillion.runs import Run
from submillion.text import interval

_WIDTH = len("trainable parameters")  # of the left column, in all tables of a result
_WHAT = {
    "config.yaml": "every setting of the run",
    "plan.json": "where the budget went",
    "environment.json": "device, precision, versions, command",
    "labels.json": "label names in the order of their numbers",
    "data.json": "rows, splits, fingerprints",
    "trained-on.npy": "hashes of the training texts: evaluate counts the rows that were seen",
    "teachers.json": "the runs that taught this one",
    "metrics.jsonl": "a record for each step and evaluation",
    "tracking.json": "the names of the run in trackers",
    "adapter": "opens with plain transformers + peft",
    "predictions-validation.parquet": "each row's probabilities",
    "predictions-test.parquet": "each row's probabilities",
    "thresholds.json": "the probability from which each label is given",
    "calibration.json": "the temperature of calibrated probabilities",
    "stopped.json": "where the watcher stopped training",
    "scores.json": "scores with 95 % intervals",
    "cost.json": "seconds of each phase, peak memory",
    "report.html": "the results, to open in a browser",
    "report.md": "the same as Markdown, with figures/",
    "report.json": "the same as numbers",
    "exports": "the run as files for other programs, each checked against it",
    "DONE": "the run is complete: hashes of its files",
}


def scores(values: Mapping[str, Score], title: str = "") -> Section:
    """Return the scores of one split, a line for each."""
    rows = [(key.replace("_", " "), interval(score), f"{score.n:,} rows") for key, score in values.items()]
    return Section("scores", "Scores", title, tables=(Table("", ("", "", ""), rows),))


def accuracy(run: Run, is_chosen: bool = False) -> Table:
    """Return the first scores, and the accuracies, with several labels micro-F1: on test if it was opened, and on
    validation with what was chosen on it.

    is_chosen: the run was, among settings by their validation scores.
    """
    scores = run.scores()
    usual = [key for key in ("accuracy", "micro_f1") if key in scores["validation"]]  # of one label, or of several
    caveats = (("test", "(95 % interval)"), ("validation", f"({_selection(run, is_chosen)})"))
    rows = [
        (f"{split} {NAMES[key]}".ljust(_WIDTH), interval(scores[split][key]), f"{scores[split][key].n:,} rows", caveat)
        for key in dict.fromkeys((leading(scores["validation"])[0], *usual))
        for split, caveat in caveats
        if split in scores
    ]
    return Table("", ("", "", "", ""), rows)


def _selection(run: Run, is_chosen: bool) -> str:
    n = len(run.evaluations())
    if n > 1 or is_chosen:
        return f"after selection: the {'setting' if is_chosen else 'checkpoint'} was chosen on it"
    return "95 % interval; not selected on: one evaluation" if n else "95 % interval"


def parameters(run: Run) -> Table:
    """Return how many of a run's parameters were trained, and under which budget."""
    plan = run.read_json("plan.json")
    share = 100 * plan["total"] / plan["all_params"]
    limit = "no budget: full fine-tuning" if plan["budget"] is None else f"budget {plan['budget']:,}"
    cells = ("trainable parameters", f"{plan['total']:,} of {plan['all_params']:,} ({share:.4f} %), {limit}")
    return Table("", ("", ""), [cells])


def files(run: Run) -> tuple[str, str]:
    """Return the run's folder, and a line for each file in it with what it holds, as a section's code."""
    there = (f"{name:<32} {what}" for name, what in _WHAT.items() if (run.path / name).exists())
    return f"files in {run.path}/", "\n".join(there)
