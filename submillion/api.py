"""`submillion.train`: what people have at hand, settings and rows of any kind, becomes what `workflow.train` takes.

`predict`, `evaluate`, `compare` and `load_run` take runs and rows as people have them where they are defined.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from submillion import config as configs
from submillion.cli.progress import TrainingView
from submillion.config import Config
from submillion.data import memory
from submillion.data.sources import MEMORY
from submillion.errors import ConfigError
from submillion.runs import EvalRecord, Run, StepRecord
from submillion.training import workflow
from submillion.training.watching import wish_of
from submillion.training.workflow import Answer, Phase, Watch

_CONFIG_FILES = (".yaml", ".yml")


def train(
    config: Config | Mapping[str, Any] | Path | str | None = None,
    data: object = None,
    watch: Watch | Sequence[Watch] | None = None,
    **settings: Any,
) -> Run:
    """Train a classifier inside the budget; return its run, finished, whose `scores()` have their intervals.

    config: settings, as `load_config` takes them: what it returned, a YAML file's path, or a dict. May be left out:
    rows may stand first. `settings` are those of `load_config` too: keys of the config, recipe, overrides.

    data: the rows, in the place of data.source. A path or a Hub name, as there; or rows in memory: a pandas DataFrame,
    a datasets.Dataset or a list of dicts (a row each), with the columns data.text and data.label; a dict of them, such
    as a DatasetDict, has the splits train, validation and test. The settings cut validation and test from train where
    they are not given. Rows in memory are checked as those of files are. The run keeps no text: who goes on with a
    paused run gives them again.

    watch: called with each `Phase`, `StepRecord` and `EvalRecord`; its answers to the latter two, the records, are in
    charge of the training:

    - None (or False): go on.
    - "pause" (or True): keep a checkpoint and return the run unfinished. The same call goes on, to the same end as if
      it had never paused.
    - "stop": evaluate what was trained so far, and finish the run now with its best checkpoint: scored, sealed and
      reported. `stopped.json` and the report say where. The same call returns that run, also without the watcher;
      remove it (`submillion runs remove RUN`) to train to the end.

    Several watchers may be given in a list, such as `[submillion.progress(), mine]`. None shows the progress in a
    notebook and at a Python prompt, and nothing in a script.

    The same settings and rows are trained once: asked again, the finished run is returned from its folder in `runs/`
    (`out`), and an interrupted one goes on. ConfigError, DataError, HubError, BudgetError or RunError says what is
    wrong.

        run = submillion.train("reviews.csv", model="all-MiniLM-L6-v2", budget=200_000)
        run = submillion.train(frame, overrides={"data.text": "review", "data.label": "stars", "train.epochs": 2})
        run = submillion.train(submillion.load_config(recipe="demo"), {"train": frame, "test": held_out})
    """
    if _is_rows(config):
        if data is not None:
            raise ConfigError(
                "rows are given twice: the first argument holds some, and data too; give the settings first"
            )
        config, data = None, config
    resolved, rows = configs.load(config, **settings), None  # pyright: ignore[reportArgumentType]
    if isinstance(data, str | os.PathLike):
        resolved = configs.changed(resolved, {"data.source": os.fsdecode(data)})
    elif data is not None:
        resolved = configs.changed(resolved, {"data.source": MEMORY})
        rows = memory.splits(data, resolved.data)
    with _watching(watch) as watcher:
        return workflow.train(resolved, watcher, rows=rows)


def _is_rows(value: object) -> bool:
    """Whether the first argument is rows; a dict of rows has some for train, where settings have a dict."""
    match value:
        case None | Config():
            return False
        case str() | os.PathLike():
            return not os.fsdecode(value).endswith(_CONFIG_FILES)
        case Mapping():
            return memory.kind_of(value.get("train")) is not None
    return True


@contextmanager
def _watching(watch: Watch | Sequence[Watch] | None) -> Iterator[Watch]:
    """One watcher of all; views among them are drawn until the block ends."""
    if watch is None:
        watch = [TrainingView()] if hasattr(sys, "ps1") else []  # Python's own sign of a prompt, and notebooks'
    watchers = [watch] if callable(watch) else watch

    def together(record: StepRecord | EvalRecord | Phase) -> Answer:
        wishes: list[Answer] = [wish_of(each(record)) for each in watchers]
        return next((wish for wish in wishes if wish is not None), None)

    with ExitStack() as stack:
        for each in watchers:
            if isinstance(each, TrainingView):
                stack.enter_context(each)
        yield together
