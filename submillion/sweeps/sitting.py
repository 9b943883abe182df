"""One sitting of a study: finished runs are looked up, the rest trained, and the next batch follows from the results.

A trial's run is an ordinary run folder, addressed by its hash, so that a killed study resumes and a repeated trial
is trained once. Test is opened once, at the end, by the recommended run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from submillion import config, data, reports, runs
from submillion.data import Splits
from submillion.errors import ConfigError, RunError, SubmillionError, command
from submillion.judging.comparison import Verdict
from submillion.runs import Run, compared
from submillion.runs.study import Stage
from submillion.sweeps import executors, racing, storage, summary, timing
from submillion.sweeps.executors import Execute, Job, Result
from submillion.sweeps.lookup import Lookup, Remaining
from submillion.sweeps.storage import Storage
from submillion.sweeps.strategies import Batch, Ending, Ranking, strategy
from submillion.sweeps.study import (
    How,
    Outcome,
    Prepared,
    Status,
    StatusWatch,
    Sweep,
    prepare,
    previewed,
    whole,
    with_metric,
)
from submillion.sweeps.trials import Failure, with_seeds
from submillion.text import plural
from submillion.training import distillation, workers, workflow
from submillion.training.workers import Threads
from submillion.training.workflow import Phase, downloads
from submillion.training.workflow import Watch as RunWatch

_FEWEST_SEEDS = 2  # of each setting, before ties are looked for


def sweep(
    which: Path | str,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    how: How | None = None,
    watch: StatusWatch = lambda _: None,
    watch_run: RunWatch = lambda _: False,
) -> Sweep:
    """Return a finished study, by its file or a shipped one's name; what earlier sittings finished is not run again.

    `watch` sees each trial that ends, `watch_run` the records of an inline run. With processes the calling script needs
    `if __name__ == "__main__":`. ConfigError, DataError, HubError or RunError says what stopped it; finished
    trials are kept.
    """
    how = how or How()
    return run(prepare(which, overrides, how.scale), how, watch, watch_run)


def run(prepared: Prepared, how: How, watch: StatusWatch, watch_run: RunWatch = lambda _: False) -> Sweep:
    """Run a prepared study and return it finished; all trials read one commit of a Hub data set."""
    prepared = _pinned(prepared, watch_run)
    folder = prepared.folder
    summary.make_folder(prepared)
    with runs.locked(folder):
        summary.write_study(prepared)
        splits = data.read(whole(prepared.space.base))
        prepared, size = with_metric(prepared, splits.has_several), timing.counted(splits)
        prepared = previewed(prepared.study, prepared.space, size, prepared.preview.speed)
        _refuse_teachers(prepared, splits)
        threads = workers.share(how.where, how.n_workers)
        store = storage.opened(prepared.study, folder, _identity(prepared, splits), how.storage, how.n_workers, threads)
        with (
            workers.threads(store.threads.here),
            executors.executor(how.where, how.n_workers, how.address) as execute,
        ):
            sitting = _Sitting(prepared, store, execute, Remaining(prepared.preview, size), watch, watch_run)
            sitting.groups = data.groups_of(splits.validation)
            sitting.say_threads(threads, how)
            try:
                ending = sitting.run()
            finally:
                sitting.note()
            result = sitting.conclude(ending)  # ties may get more seeds
        summary.write(result)
        sitting.report()
    return result


class _Sitting:
    """The mutable half of a study: its results so far."""

    def __init__(
        self,
        prepared: Prepared,
        store: Storage,
        execute: Execute,
        remaining: Remaining,
        watch: StatusWatch,
        watch_run: RunWatch,
    ) -> None:
        self.prepared, self.store, self.execute = prepared, store, execute
        self.watch, self.watch_run = watch, watch_run
        self.lookup = Lookup(store, watch_run)
        self.remaining = remaining
        self.outcomes: list[Outcome] = []
        self.stages: list[Stage] = []
        self.compared: dict[tuple[Path, ...], Verdict] = {}
        self.notes: list[str] = []
        self.measured: list[tuple[float, float]] = []
        self.groups: np.ndarray | None = None  # of validation rows that are not independent; for races

    def run(self) -> Ending:
        """Run batch after batch; return what the strategy ends with."""
        generator = strategy(self.prepared.study, self.store.propose)
        try:
            batch = next(generator)
            while True:
                self._conclude(batch, batch.stage)
                batch = generator.send(self._ranking(batch.stage, self._run(batch)))
        except StopIteration as end:
            self._conclude(end.value, "")
            return end.value

    def conclude(self, ending: Ending) -> Sweep:
        """Compare what finished, open the recommended run's test split, return it all."""
        contenders = [outcome for outcome in self.outcomes if outcome.trial.candidate in ending.contenders]
        if ending.settles:
            self._settle("ties", contenders)
        done = [outcome for outcome in contenders if outcome.is_done]
        if not done:
            reasons = {outcome.why or outcome.trial.excess for outcome in self.outcomes}
            raise RunError(f"no trial finished: {'; '.join(sorted(map(str, reasons)))}")
        compared = self._compared(done)
        chosen = _recommended(done, compared)
        # The first seed's run, not the best one's: choosing among seeds would be one more selection.
        first = self.lookup.pinned[self.lookup.hash(chosen.trial.configs[0])]
        run = workflow.train(first, self.watch_run)
        fingerprint = run.read_json("data.json")["test_fingerprint"]
        n_reads = 0 if fingerprint is None else runs.count_test_reads(run.path.parent, fingerprint)
        outcomes, stages, notes = tuple(self.outcomes), tuple(self.stages), tuple(self.notes)
        return Sweep(self.prepared, outcomes, stages, ending, notes, compared, run, n_reads)

    def say_threads(self, threads: Threads, how: How) -> None:
        """Tell the watcher if the study keeps an earlier number of threads, or has more than there are cores."""
        for note in workers.thread_notes(self.store.threads.each, threads.each, how.where, how.n_workers):
            self._say("", note)

    def note(self) -> None:
        """Write what is known so far: a study that is stopped or killed leaves this."""
        summary.write_outcomes(self.prepared, self.outcomes, self.stages)

    def report(self) -> None:
        """Write the finished study's pages. If that fails, the study is finished all the same."""
        folder = self.prepared.folder
        try:
            reports.write_study(folder)
        except Exception as error:
            again = f"the study is finished; `{command('report', folder)}` tries again"
            self._say("", f"no report: {type(error).__name__}: {error}; {again}")

    def _conclude(self, after: Batch | Ending, stage: str) -> None:
        """Note what was concluded from the previous batch."""
        if after.fixed is not None:
            self.stages[-1] = replace(self.stages[-1], fixed=after.fixed)
        for note in after.notes:
            self._note(stage, note)

    def _note(self, stage: str, note: str) -> None:
        """Keep a conclusion, and tell the watcher."""
        self.notes.append(note)
        self._say(stage, note)

    def _run(self, batch: Batch) -> list[Outcome]:
        """Look up what is finished, train the rest; train settings that tie with more seeds."""
        outcomes = [Outcome(self.prepared.space.trial(candidate)) for candidate in batch.candidates]
        for outcome in outcomes:
            self.lookup.ask(outcome, outcome.trial)
        self.outcomes += outcomes
        for rung in batch.rungs:
            self._train(batch.stage, outcomes, rung)
            self._drop(batch.stage, outcomes, rung)
            self.remaining.trained = rung
        self._train(batch.stage, outcomes)
        self.remaining.trained = 0.0
        if batch.rungs:
            self._note(batch.stage, racing.cost_sentence(outcomes))
        if batch.settles:
            self._settle(batch.stage, outcomes)
        return outcomes

    def _train(self, stage: str, outcomes: Sequence[Outcome], until: float = 1.0) -> None:
        """Train the runs that are missing or have not come so far, and tell the storage."""
        wanted = self.lookup.missing(outcomes, until)
        left = [outcome for outcome in outcomes if outcome.failure is None]
        where = "" if until == 1 else f", up to {Fraction(until)} of their steps"
        n_trials, n_runs = (f"{len(some)} {plural(len(some), one)}" for some, one in ((left, "trial"), (wanted, "run")))
        self._say(stage, f"{stage}: {n_trials}, {n_runs} to train{where}")
        for outcome in outcomes:
            outcome.number = self.store.begin(outcome.trial.candidate)
            self._tell(outcome)
        jobs = [Job(i, settings, self.store.threads.each, until) for i, (settings, _) in enumerate(wanted)]
        for result in self.execute(jobs, self.watch_run):
            for outcome in wanted[result.number][1]:
                outcome.failure = outcome.failure or result.failure
                if result.run is not None:
                    self.lookup.add(outcome, result.run)
                self._tell(outcome)
            self._measure(result)
            self.note()
            self._say(stage, summary.outcome_line(wanted[result.number][1][0], until))

    def _settle(self, stage: str, outcomes: Sequence[Outcome]) -> None:
        """Give each setting that cannot be told from the best `tie_seeds` seeds. If they lower a score, another setting
        may enter the group, and gets them too. Before that all get two: one seed says nothing about a setting."""
        n_seeds = self.prepared.study.tie_seeds or 0
        finished = [outcome for outcome in outcomes if outcome.is_done]
        if n_seeds and len(_distinct(finished)) > 1:
            self._more_seeds(
                stage, [each for each in finished if len(each.trial.configs) < _FEWEST_SEEDS], _FEWEST_SEEDS
            )
        while True:
            done = [outcome for outcome in outcomes if outcome.is_done]
            tied = self._tied(_distinct(done))
            names = {outcome.runs[0] for outcome in tied}  # several candidates may be one setting
            few = [each for each in done if each.runs[0] in names and len(each.trial.configs) < n_seeds]
            if len(tied) < 2 or not few:
                return
            self._say(stage, f"{stage}: {len(tied)} settings cannot be told apart; {n_seeds} seeds for each of them")
            self._more_seeds(stage, few, n_seeds)

    def _more_seeds(self, stage: str, outcomes: Sequence[Outcome], n_seeds: int) -> None:
        """Train n_seeds seeds of each outcome."""
        for outcome in outcomes:
            self.lookup.ask(outcome, with_seeds(outcome.trial, n_seeds))
        if outcomes:
            self._train(stage, outcomes)

    def _tied(self, done: Sequence[Outcome]) -> list[Outcome]:
        """The finished outcomes that cannot be told from the best of them."""
        compared = self._compared(done)
        return list(done) if compared is None else [each for each in done if _setting(each, compared) in compared.group]

    def _drop(self, stage: str, outcomes: Sequence[Outcome], rung: float) -> None:
        """Rule out the outcomes that can no longer win, by the losses at the rung of all that reached it."""
        for outcome, why in racing.rulings(outcomes, rung, self.prepared.space.n_classes, self.groups):
            outcome.failure = Failure("ruled out", f"ruled out: {why}")
            self._tell(outcome)
            self._say(stage, summary.outcome_line(outcome))
        self.note()

    def _tell(self, outcome: Outcome) -> None:
        """Tell the storage an outcome, once it is known."""
        if outcome.number is not None and (outcome.is_done or outcome.failure is not None):
            height = outcome.height if outcome.is_done else None
            self.store.tell(outcome.number, height, [path.name for path in outcome.runs], outcome.failure)
            if self.prepared.study.kind == "race" and not outcome.course:
                outcome.course = racing.points(outcome)

    def _ranking(self, stage: str, outcomes: Sequence[Outcome]) -> Ranking:
        """Which candidates finished, the best first, and which cannot be told from the best."""
        done = _distinct([outcome for outcome in outcomes if outcome.is_done])
        ranked = sorted(((each.trial.candidate, each.height) for each in done), key=lambda pair: -pair[1])
        compared = self._compared(done)
        self.stages.append(Stage(stage, fixed=None, comparison=compared))
        if not done or compared is None:
            return Ranking(tuple(ranked), tuple(c for c, _ in ranked), ranked[0][0] if ranked else None)
        group = tuple(each.trial.candidate for each in self._tied(done))
        return Ranking(tuple(ranked), group, _recommended(done, compared).trial.candidate)

    def _compared(self, done: Sequence[Outcome]) -> Verdict | None:
        """The comparison of outcomes, made once: a study's last one is often that of a batch."""
        paths = tuple(sorted({path for outcome in done for path in outcome.runs}))
        if len(paths) > 1 and paths not in self.compared:
            self.compared[paths] = compared.compare(paths, margin=self.prepared.study.margin)
        return self.compared.get(paths)

    def _measure(self, result: Result) -> None:
        if result.run is not None and (measured := timing.measured(Run(result.run))) is not None:
            self.measured.append(measured)

    def _say(self, stage: str, line: str) -> None:
        """Tell the watcher, with the time left at the speed of this sitting's training."""
        speed = self.prepared.preview.speed.flops_per_s
        if self.measured:
            speed = sum(n for n, _ in self.measured) / sum(seconds for _, seconds in self.measured)
        left = self.remaining.n_flops(self.outcomes)
        self.watch(Status(tuple(self.outcomes), stage, left / speed / self.store.n_parallel, line))


def _distinct(done: Sequence[Outcome]) -> list[Outcome]:
    """Outcomes without those whose runs an earlier one has: several candidates may be one setting."""
    return list({outcome.runs[0]: outcome for outcome in reversed(done)}.values())[::-1]


def _setting(outcome: Outcome, compared: Verdict) -> str:
    """The comparison's name for an outcome's runs."""
    return next(each.name for each in compared.settings if outcome.runs[0].name in each.runs)


def _recommended(done: Sequence[Outcome], compared: Verdict | None) -> Outcome:
    if compared is None:
        return done[0]
    return next(outcome for outcome in done if _setting(outcome, compared) == compared.recommended)


def _pinned(prepared: Prepared, watch_run: RunWatch) -> Prepared:
    """The study with the commit of its Hub data set, which is downloaded; HubError comes before a folder is made."""
    base = prepared.space.base
    pinned = data.pinned(base.data, lambda note: watch_run(Phase("asking the Hub", notes=(note,))))
    data.download(pinned, downloads(watch_run))
    return replace(prepared, space=replace(prepared.space, base=base.model_copy(update={"data": pinned})))


def _identity(prepared: Prepared, splits: Splits) -> str:
    """What makes results comparable in one Optuna study: rows, shared settings, seeds and scale, not the factors."""
    space, study = prepared.space, prepared.study
    return config.digest(
        space.base, f"{splits.fingerprint} {study.kind} {study.seeds} {space.scale:g} {study.sampler_seed}"
    )


def _refuse_teachers(prepared: Prepared, splits: Splits) -> None:
    """Raise what `distillation` finds wrong with any teacher, before any trial starts."""
    problems: list[str] = []
    taught = {trial.configs[0].distillation.teacher: trial.configs[0] for trial, _ in prepared.preview.trials}
    for settings in taught.values():
        try:
            finished = [teacher for teacher in distillation.asked(settings) if isinstance(teacher, Run)]
            distillation.check(finished, settings, splits)
        except SubmillionError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
