"""Stopping a trial that the best one so far already beats: the paired sequential test, at each evaluation.

Owns the rows that are compared, those of `EvalRecord.right`; the test itself stands in `comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from submillion import runs
from submillion.judging import comparison
from submillion.runs import EvalRecord, StepRecord
from submillion.training.workflow import Phase


@dataclass
class Watcher:
    """A watcher for `workflow.train` that says True once the best finished run rules the trial out.

    best: a file that names that run's folder, looked at anew each time; None or no such file never stops a trial.
    reason says, at the end, which run was better and where.
    """

    best: Path | None
    reason: str = ""

    def __call__(self, record: StepRecord | EvalRecord | Phase) -> bool:
        """Look at an evaluation; other records never stop a trial."""
        if not isinstance(record, EvalRecord) or record.right is None or self.best is None or not self.best.exists():
            return False
        rival = Path(self.best.read_text(encoding="utf-8"))
        at_step = _right_at(rival)
        other = at_step.get(record.step)
        if other is not None and comparison.is_ruled_out(
            runs.unpacked_rows(other), runs.unpacked_rows(record.right), n_checkpoints=len(at_step)
        ):
            self.reason = f"{rival.name} is better at step {record.step}"
        return bool(self.reason)


@cache
def _right_at(rival: Path) -> dict[int, str]:
    """The rows that a finished run had right, by step."""
    records = runs.load(rival).records()
    return {r.step: r.right for r in records if isinstance(r, EvalRecord) and r.right is not None}
