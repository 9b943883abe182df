"""How much of a study is left: runs that its trials still miss, and trials that are planned but not yet asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from submillion.sweeps import timing
from submillion.sweeps.previews import Preview
from submillion.sweeps.study import Outcome
from submillion.sweeps.timing import Size


class Remaining:
    """Counts floating-point operations; of stages that are still to come the preview is the measure."""

    def __init__(self, preview: Preview, size: Size) -> None:
        self.size = size
        self.planned: dict[str, list[float]] = defaultdict(list)  # of each trial that fits, by stage
        for trial, n_flops in preview.trials:
            if trial.fits:
                self.planned[trial.candidate.stage].append(n_flops)
        self.costs: dict[Path, float] = {}  # of the runs that were asked for

    def n_flops(self, outcomes: Sequence[Outcome]) -> float:
        """Return the operations that are left after these outcomes; 0 where the last one is finished."""
        missing = {
            path: each for each in outcomes if each.why is None for path in each.folders if path not in each.runs
        }
        asked = Counter(outcome.trial.candidate.stage for outcome in outcomes)
        later = (max(0, len(costs) - asked[stage]) * float(np.mean(costs)) for stage, costs in self.planned.items())
        return sum(self._cost(path, outcome) for path, outcome in missing.items()) + sum(later)

    def _cost(self, path: Path, outcome: Outcome) -> float:
        if path not in self.costs:
            trial = outcome.trial
            self.costs[path] = timing.flops(trial.configs[0], trial.plan, self.size)
        return self.costs[path]
