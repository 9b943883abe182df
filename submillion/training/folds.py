"""A training in folds: each row of training and validation is predicted by a run that did not see it.

A fold is an ordinary run whose settings name it (`data.fold`): the rows it holds out are its test split, opened once,
at its end; its checkpoint is chosen on validation rows taken from the others. The settings' own test rows are in no
fold. `runs.folds` writes the pooled results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from submillion import config, data, reports, runs
from submillion.config import MOST_FOLDS, Config
from submillion.data import sources
from submillion.data.tables import Table
from submillion.errors import ConfigError, command
from submillion.judging import metrics
from submillion.judging.metrics import Predictions, Score, numbered
from submillion.model import processes
from submillion.runs import Run, folds
from submillion.runs.folds import FORMAT, FoldRecord, FoldsRecord
from submillion.training import preparing, workflow
from submillion.training.watching import Phase, Watch


@dataclass(frozen=True)
class Folds:
    """A training in folds: its folder and the folds' runs. scores and predictions are of all rows; None if a watcher
    paused a fold."""

    folder: Path
    runs: tuple[Run, ...]
    scores: dict[str, Score] | None = None
    predictions: Predictions | None = None


def train(
    settings: Config, n_folds: int, watch: Watch = lambda _: None, rows: Mapping[str, Table] | None = None
) -> Folds:
    """Return the folds of the settings: trained now, resumed or found finished, one after the other.

    `watch` and `rows` are as in `workflow.train`; a paused fold ends the call, and the same call continues it. The
    folder is `<out>/<name>-folds-<hash8>`. ConfigError or DataError if the folds are impossible; else the errors of
    `workflow.train`.
    """
    _refuse(settings, n_folds)
    if rows is None:
        sources.refuse_missing(settings.data)  # before the encoder is looked for
    with processes.together():
        watch = watch if processes.is_main() else lambda _: None
        with processes.in_turn():
            settings = preparing.pinned(settings, watch)
            configs = [_of_fold(settings, number, n_folds) for number in range(1, n_folds + 1)]
            data.download(settings.data, workflow.downloads(watch))
            # The first fold's settings and rows name the folder: they decide the others'.
            splits, whole = data.read(configs[0].data, rows), folds.of_all_rows(settings, n_folds)
            fingerprint = (splits if whole == configs[0] else data.read(whole.data, rows)).fingerprint
        folder = runs.folder(settings.out, f"{settings.name}-folds", config.digest(configs[0], splits.key))
        done: list[Run] = []
        for number, fold_settings in enumerate(configs, start=1):
            watch(Phase(f"fold {number} of {n_folds}"))
            placed = fold_settings.model_copy(update={"out": str(folder), "name": f"fold-{number}"})
            done.append(workflow.train(placed, watch, rows=rows))
            if not processes.of_main(done[-1]).is_done:
                return Folds(folder, tuple(done))
        result = processes.on_main(partial(_pooled, folder, done, settings, fingerprint))
        processes.on_main(partial(_report, folder, watch))
        return result


def _refuse(settings: Config, n_folds: int) -> None:
    problems = []
    if not 2 <= n_folds <= MOST_FOLDS:
        problems.append(f"--folds is {n_folds}: give 2 to {MOST_FOLDS}; 5 or 10 are common")
    if settings.data.fold is not None:
        problems.append(f"data.fold is {settings.data.fold}, one fold, and --folds trains all of them: leave one out")
    if problems:
        raise ConfigError(*problems)


def _of_fold(settings: Config, number: int, n_folds: int) -> Config:
    return config.changed(settings, {"data.fold": f"{number}/{n_folds}"})


def _pooled(folder: Path, done: Sequence[Run], settings: Config, fingerprint: str) -> Folds:
    """Pool each run's predictions of the rows it held out, and write them."""
    labels, parts = done[0].labels(), [run.load_predictions("test") for run in done]
    order = [[run.labels().index(label) for label in labels] for run in done]
    predictions = Predictions(
        ids=[row_id for each in parts for row_id in each.ids],
        label_ids=np.concatenate([np.argsort(o)[each.label_ids] for o, each in zip(order, parts, strict=True)]),
        probs=np.concatenate([each.probs[:, o] for o, each in zip(order, parts, strict=True)]),
        groups=_pooled_groups(parts),
    )
    scores = metrics.score_by(predictions, done[0].metric())
    record = FoldsRecord(
        format=FORMAT,
        settings=settings.model_dump(mode="json"),
        fingerprint=fingerprint,
        scores=scores,
        folds=tuple(FoldRecord(run.name, run.scores()["test"]) for run in done),
        notes=tuple(dict.fromkeys(note for run in done for note in run.read_json("data.json")["warnings"])),
    )
    folds.write(folder, record, predictions, list(done[0].classes()))
    return Folds(folder, tuple(done), scores, predictions)


def _pooled_groups(parts: Sequence[Predictions]) -> np.ndarray | None:
    """Return the groups of all folds' rows, none of which is in two folds."""
    groups = [np.arange(len(each.ids)) if each.groups is None else each.groups for each in parts]
    firsts = np.cumsum([0, *(len(each) for each in groups)])
    return numbered(np.concatenate([first + each for first, each in zip(firsts[:-1], groups, strict=True)]))


def _report(folder: Path, watch: Watch) -> None:
    """Write the pages. Whatever goes wrong, the folds are kept."""
    watch(Phase("reporting"))
    try:
        reports.write_folds(folder)
    except Exception as error:
        again = f"the folds are finished; `{command('report', folder)}` tries again"
        watch(Phase("no report", notes=(f"{type(error).__name__}: {error}", again)))
