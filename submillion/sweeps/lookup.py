"""What run folders and the storage already say of a trial; which runs are still missing, and how much is left.

Owns the hashes that address runs. Training what is missing is left to `sitting`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from submillion import runs
from submillion.config import Config
from submillion.planning import architectures
from submillion.sweeps import racing, timing
from submillion.sweeps.previews import Preview
from submillion.sweeps.storage import Storage
from submillion.sweeps.study import Outcome
from submillion.sweeps.timing import Size
from submillion.sweeps.trials import Failure, Trial, with_seeds
from submillion.training import workflow
from submillion.training.workflow import Stopwatch
from submillion.training.workflow import Watch as RunWatch


class Lookup:
    """Finds runs by their hashes, each of which is computed once."""

    def __init__(self, store: Storage, watch: RunWatch) -> None:
        self.store, self.watch = store, watch
        self.hashes: dict[str, str] = {}
        self.pinned: dict[str, Config] = {}  # by hash: the config that its run is trained from, wherever that is
        self.models = store.models()  # a Hub name means one commit for a whole study, in later sittings too
        self.n_seeds: dict[str, int] = {}  # of a setting, by its first run's hash

    def ask(self, outcome: Outcome, trial: Trial) -> None:
        """Write into the outcome what its folders say of the trial, or why the storage has no result of it.

        A setting that a tie in an earlier stage gave more seeds gets as many here.
        """
        outcome.trial, outcome.runs = trial, []
        if not trial.fits:
            outcome.failure = Failure("over budget", "over budget")
            return
        first = self.hash(trial.configs[0])
        n_seeds = self.n_seeds[first] = max(len(trial.configs), self.n_seeds.get(first, 0))
        outcome.trial = trial = with_seeds(trial, n_seeds)
        seed_runs = [runs.find(each.out, self.hash(each)) for each in trial.configs]
        outcome.folders = tuple(
            runs.folder(each.out, each.name, self.hash(each)) if run is None else run.path
            for each, run in zip(trial.configs, seed_runs, strict=True)
        )
        outcome.runs = [run.path for run in seed_runs if run is not None and run.is_done]
        failure = self.store.failure(trial.candidate)
        is_kept = failure is None or failure.state != "ruled out" or self.store.study.kind == "race"
        outcome.failure = failure if is_kept else None

    def missing(self, outcomes: Sequence[Outcome], until: float = 1.0) -> list[tuple[Config, list[Outcome]]]:
        """Return the configs whose runs are not finished, or not trained up to the share `until` of their steps, each
        once, with the outcomes that need it."""
        wanted: dict[str, tuple[Config, list[Outcome]]] = {}
        for outcome in outcomes:
            finished = {path.name[-8:] for path in outcome.runs}
            for settings in outcome.trial.configs if outcome.failure is None else ():
                name = self.hash(settings)
                if name not in finished and not self._has_reached(settings, name, until):
                    wanted.setdefault(name, (self.pinned[name], []))[1].append(outcome)
        return list(wanted.values())

    def _has_reached(self, settings: Config, name: str, share: float) -> bool:
        run = runs.find(settings.out, name) if share < 1 else None
        return run is not None and racing.has_reached(run, share)

    def add(self, outcome: Outcome, run: Path) -> None:
        """Note a finished run; runs are in the order of their seeds, whichever ended first."""
        order = [self.hash(each) for each in outcome.trial.configs]
        outcome.runs = sorted([*outcome.runs, run], key=lambda path: order.index(path.name[-8:]))

    def hash(self, settings: Config) -> str:
        """Return the hash that addresses a run; a teacher that is a recipe is trained for it, once."""
        key = settings.model_dump_json()
        if key not in self.hashes:
            question = workflow.ask(self._of_one_commit(settings), Stopwatch(self.watch), as_trial=True)
            self.hashes[key] = question.hash
            self.pinned[question.hash] = question.settings
        return self.hashes[key]

    def _of_one_commit(self, settings: Config) -> Config:
        model = settings.model
        key = model.name if model.revision is None else f"{model.name}@{model.revision}"
        if key not in self.models:
            pinned = architectures.pinned(model)
            if pinned.revision is None:  # on this disk
                return settings
            self.models[key] = (pinned.name, pinned.revision)
            self.store.note_models(self.models)
        name, commit = self.models[key]
        return settings.model_copy(update={"model": model.model_copy(update={"name": name, "revision": commit})})


class Remaining:
    """Counts floating-point operations; those of stages still to come are the preview's."""

    def __init__(self, preview: Preview, size: Size) -> None:
        self.size = size
        self.planned: dict[str, list[float]] = defaultdict(list)  # of each trial that fits, by stage
        for trial, n_flops in preview.trials:
            if trial.fits:
                self.planned[trial.candidate.stage].append(n_flops)
        self.costs: dict[Path, float] = {}  # of a run, by its path
        self.trained = 0.0  # the share of each that a race has trained

    def n_flops(self, outcomes: Sequence[Outcome]) -> float:
        """Return the operations that are left after these outcomes; 0 once the last one is finished."""
        missing = {
            path: each for each in outcomes if each.failure is None for path in each.folders if path not in each.runs
        }
        n_begun = Counter(outcome.trial.candidate.stage for outcome in outcomes)
        later = (max(0, len(costs) - n_begun[stage]) * float(np.mean(costs)) for stage, costs in self.planned.items())
        of_missing = sum(self._cost(path, outcome) for path, outcome in missing.items())
        return (1 - self.trained) * of_missing + sum(later)

    def _cost(self, path: Path, outcome: Outcome) -> float:
        if path not in self.costs:
            trial = outcome.trial
            self.costs[path] = timing.flops(trial.configs[0], trial.plan, self.size)
        return self.costs[path]
