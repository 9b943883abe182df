"""What a watcher of `workflow.train` is shown besides records: the steps of the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from submillion.runs import EvalRecord, StepRecord


@dataclass(frozen=True)
class Phase:
    """A step of the work begins; `n_steps` and `done_steps` where it trains, `notes` worth printing.

    One that works through rows has `n_rows`, and is shown again with more and more `done_rows`.
    """

    name: str
    n_steps: int = 0
    done_steps: int = 0
    n_rows: int = 0
    done_rows: int = 0
    notes: tuple[str, ...] = ()
    kind: Literal["phase"] = "phase"


Watch = Callable[[StepRecord | EvalRecord | Phase], bool]
