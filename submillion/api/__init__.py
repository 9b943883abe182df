"""Functions of the Python API that join rooms: `train`, which takes settings and rows in any form, `predict`, whose
arguments become rules, `export`, which also uploads, and `shift`, which predicts if it must.

The others take runs and rows in any form where they are defined. Heavy rooms are imported by the call that needs
them: `shift` answers from saved predictions without torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from submillion import config as configs
from submillion import runs
from submillion.api.unlabelled import not_watched, probs_of
from submillion.cli.progress import View
from submillion.config import Config
from submillion.data import memory
from submillion.data.sources import MEMORY
from submillion.errors import ConfigError, RunError
from submillion.judging import confidence
from submillion.judging.shift import class_shares, corrected
from submillion.reports import shift as pages
from submillion.reports.shift import MAX_ROWS, Asked, Shift
from submillion.runs import EvalRecord, Run, StepRecord, Which
from submillion.text import shown

if TYPE_CHECKING:
    import numpy as np

    from submillion.data.tables import Table
    from submillion.exports.manifest import Format, Manifest
    from submillion.prediction import Labelled
    from submillion.training.folds import Folds
    from submillion.training.workflow import Answer, Phase, Watch

_CONFIG_FILES = (".yaml", ".yml")


@overload
def train(
    config: Config | Mapping[str, Any] | Path | str | None = None,
    data: object = None,
    watch: Watch | Iterable[Watch] | None = None,
    as_trial: bool = False,
    folds: None = None,
    start: Which | None = None,
    **settings: Any,
) -> Run: ...
@overload
def train(
    config: Config | Mapping[str, Any] | Path | str | None = None,
    data: object = None,
    watch: Watch | Iterable[Watch] | None = None,
    *,
    folds: int,
    start: Which | None = None,
    **settings: Any,
) -> Folds: ...
def train(
    config: Config | Mapping[str, Any] | Path | str | None = None,
    data: object = None,
    watch: Watch | Iterable[Watch] | None = None,
    as_trial: bool = False,
    folds: int | None = None,
    start: Which | None = None,
    **settings: Any,
) -> Run | Folds:
    """Train a classifier inside the budget; return its finished run, whose `scores()` have intervals.

    config: settings, as `load_config` takes them: its result, a YAML file's path, or a dict. May be left out, with the
    rows as the first argument. `settings` are those of `load_config` too: keys of the config, recipe, overrides.

    data: the rows, in place of data.source. A path or a Hub name, as there; or rows in memory: a pandas DataFrame,
    a datasets.Dataset or a list of dicts (one per row), with the columns data.text and data.label; a dict of them, such
    as a DatasetDict, has the splits train, validation and test. Splits that are not given are cut from train, as the
    settings say. Rows in memory are checked like those of files. The run keeps no text: to resume a paused run, give
    them again.

    watch: called with each `Phase`, `StepRecord` and `EvalRecord`; its answers to the latter two, the records, control
    the training:

    - None (or False): go on.
    - "pause" (or True): keep a checkpoint and return the run unfinished. The same call resumes it, with the same result
      as if it had never paused.
    - "stop": evaluate what was trained so far, and finish the run now with its best checkpoint: scored, sealed and
      reported. `stopped.json` and the report say where. The same call returns that run, also without the watcher;
      remove it (`submillion runs remove RUN`) to train to the end.

    Several watchers may be given in a list, such as `[submillion.progress(), mine]`. None shows the progress in a
    notebook and at a Python prompt, and nothing in a script.

    as_trial: as in a study's trial: no report, and the test split unopened, until the same call without as_trial.

    folds: train this many runs, each without one part of the training and validation rows; returns their `Folds`: the
    folder, the runs, and scores and predictions of all rows, each by the run that did not see it.

    start: a finished run to continue, with its settings and from its weights. `data` is then a file of new rows,
    such as `ask` writes, which are added to the run's own rows; those without a label yet are left out.

    The same settings and rows are trained once: the same call again returns the finished run from its folder in
    `runs/` (`out`), or resumes an interrupted one. ConfigError, DataError, HubError, BudgetError or RunError says
    what is wrong.

        run = submillion.train("reviews.csv", model="all-MiniLM-L6-v2", budget=200_000)
        run = submillion.train(frame, overrides={"data.text": "review", "data.label": "stars", "train.epochs": 2})
        run = submillion.train(submillion.load_config(recipe="demo"), {"train": frame, "test": held_out})
    """
    from submillion.training import folds as in_folds
    from submillion.training import workflow

    if as_trial and folds is not None:
        raise ConfigError("as_trial is for one run, but folds are several: leave one out")
    resolved, rows = _with_rows(config, data, settings, start)
    with _watching(watch) as watcher:
        if folds is not None:
            return in_folds.train(resolved, folds, watcher, rows)
        return workflow.train(resolved, watcher, as_trial, rows)


def _with_rows(
    config: Config | Mapping[str, Any] | Path | str | None,
    data: object,
    settings: Mapping[str, Any],
    start: Which | None = None,
) -> tuple[Config, dict[str, Table] | None]:
    """The config of `train`'s arguments, and the tables of rows in memory."""
    if start is not None:
        return _going_on(start, config, data, settings), None
    if _is_rows(config):
        if data is not None:
            raise ConfigError(
                "rows are given twice: the first argument holds some, and data too; give the settings first"
            )
        config, data = None, config
    source = os.fsdecode(data) if isinstance(data, str | os.PathLike) else MEMORY
    arguments = settings if data is None else {**settings, "data": source}
    resolved = configs.load(config, **arguments)  # pyright: ignore[reportArgumentType]
    if data is not None and resolved.data.source != source:
        raise ConfigError(f"data.source is {resolved.data.source}, but the rows are {source}: leave one of them out")
    rows = memory.splits(data, resolved.data) if data is not None and source == MEMORY else None
    return resolved, rows


def _going_on(start: Which, config: object, data: object, settings: Mapping[str, Any]) -> Config:
    """The config that continues a run with the new rows of a file."""
    if config is not None:
        raise ConfigError(
            f"start is {shown(start)}, whose settings are used: leave the config out; overrides apply on top"
        )
    if not isinstance(data, str | os.PathLike):
        raise ConfigError(
            f"start is {shown(start)}: data is a file of new rows, such as submillion.ask writes; give one"
        )
    return configs.load(runs.continued(runs.load(start), data), **settings)


def _is_rows(value: object) -> bool:
    """Whether the first argument is rows: `train` in a dict is rows then, and a dict in settings."""
    match value:
        case None | Config():
            return False
        case str() | os.PathLike():
            return not os.fsdecode(value).endswith(_CONFIG_FILES)
        case Mapping():
            return memory.kind_of(value.get("train")) is not None
    return True


@contextmanager
def _watching(watch: Watch | Iterable[Watch] | None) -> Iterator[Watch]:
    """One watcher that calls all; views among them are drawn until the block ends."""
    from submillion.training.watching import wish_of

    if watch is None:
        watch = [View()] if hasattr(sys, "ps1") else []  # set at a Python prompt, and in notebooks
    watchers: list[Any] = list(watch) if isinstance(watch, Iterable) and not isinstance(watch, str) else [watch]
    for each in watchers:
        if isinstance(each, type) or not callable(each):
            name = "submillion.progress" if each is View else getattr(each, "__name__", "")
            call = f"; call it first, {name}()" if isinstance(each, type) else ""
            raise ConfigError(
                f"watch is {name if each is View else shown(each)}: give a function that takes a record, or several in "
                f"a list{call}"
            )

    def together(record: StepRecord | EvalRecord | Phase) -> Answer:
        wishes: list[Answer] = [wish_of(each(record)) for each in watchers]
        return next((wish for wish in wishes if wish is not None), None)

    with ExitStack() as stack:
        for each in watchers:
            if isinstance(each, View):
                stack.enter_context(each)
        yield together


def predict(  # noqa: PLR0913 - as the command has options
    run: Which | Sequence[Which],
    rows: object,
    device: str | None = None,
    watch: Callable[[int], object] | None = None,
    id: str | None = None,  # noqa: A002 - the command's word
    calibrated: bool = False,
    max_error: float | None = None,
    coverage: float | None = None,
) -> Labelled:
    """Return the labels and probabilities of rows, in their order; a label each, or a tuple if rows have several.

    run: what `train` returns, a run's folder, or a run's name or hash in `runs/`; several, in a list, give the mean
    of their probabilities. rows: texts in a list, a tuple, a numpy array or a pandas Series, or pairs (text, second
    text) for runs trained on pairs; or a pandas DataFrame, a datasets.Dataset, a list of dicts (one per row) or a
    file's path, read by the run's own columns; labels are ignored.

    calibrated: scale probabilities by the run's temperature; labels stay. max_error: labels only where, with 95 %
    confidence, at most this share of them is wrong; other rows get None, and `answered` says which. coverage:
    `label_sets` too, which hold the true label of at least this share of rows. Both hold for rows like validation rows.

    Ids are those of the column that `id` names, else of a column `id`, else a DataFrame's or Series' index, else
    numbers from 0. `watch` is called with the number of rows done. Rows and results are in memory: `predict_file` is
    for files of any size. DataError lists everything that is wrong with the rows, RunError with the run, or says which
    promise cannot be kept.

        predictions = submillion.predict("reviews", ["Lovely!", "Never again."], max_error=0.02)
        print(predictions.labels, predictions.probs.max(axis=1))
    """
    from submillion import prediction

    answering = confidence.Answering(calibrated, max_error, coverage)
    return prediction.predict(run, rows, device, watch, id, answering)


def shift(
    run: Which | Sequence[Which],
    source: object,
    rows: int | None = MAX_ROWS,
    correct_priors: Path | str | None = None,
    watch: Callable[[int, int], object] = not_watched,
    force: bool = False,
) -> Shift:
    """Say how a file without labels differs from training, and estimate the accuracy on it; for rows with several
    labels only the former.

    run: what `train` returns, a run's folder, or a run's name or hash in `runs/`; several, in a list, are shown side
    by side. source: a file's path, or rows in memory as `predict` takes them, read by the run's own columns, never the
    label column. Of more than `rows` rows a fixed sample is read; None reads all. The page is written into the first
    run's folder, next to its predictions of the rows, which are computed if missing: `watch` is called with the rows
    done and the rows in all.

    correct_priors: a file to write all rows' labels to, by probabilities corrected for the estimated class shares;
    `force`: it may replace a file that an earlier call did not write.
    RunError or DataError lists everything that is wrong with the runs or the rows.

        answer = submillion.shift("reviews", "new.csv")
        print(answer.report.runs[0].verdict.accuracy, answer.page)
    """
    loaded = runs.load_several(run)
    if correct_priors is not None and loaded[0].has_several():
        raise RunError(
            f"--correct-priors {correct_priors}: the rows of {loaded[0].path} have several labels, and only shares "
            "of mutually exclusive classes are estimated; leave it out"
        )
    path = os.fsdecode(source) if isinstance(source, str | os.PathLike) else None
    output = None if correct_priors is None else runs.Output(Path(correct_priors), "shift", force)
    if output is not None:
        from submillion import prediction

        prediction.check_output(output, path)
    asked = pages.ask(loaded, source, None if correct_priors is not None else rows)
    probs = [probs_of(one, watch) for one in asked]
    report = pages.read(asked, probs, path or "rows in memory")
    page = pages.write(asked[0].folder, report)
    if output is not None:
        _write_corrected(asked[0], probs[0], output)
    return Shift(report, page)


def _write_corrected(asked: Asked, probs: np.ndarray, output: runs.Output) -> None:
    from submillion import prediction

    shares = class_shares(asked.run.load_predictions("validation"), probs)
    form = prediction.Form(probabilities=True)
    prediction.write_rows(output, prediction.Layout(asked.run.classes(), form), asked.ids, corrected(*shares))


@dataclass(frozen=True)
class Export:
    """A finished export: its folder and files, the address it was uploaded to, if any, whether it is new, and its
    manifest; an adapter, which training wrote, has none."""

    folder: Path
    files: tuple[str, ...]
    address: str | None
    is_new: bool
    manifest: Manifest | None


def export(  # noqa: PLR0913 - as the command has options
    run: Which,
    format: Format | Literal["adapter"],  # noqa: A002 - the command's word
    output: Path | None = None,
    data: Path | None = None,
    margin: float | None = None,
    push_to: str | None = None,
    private: bool = False,
    watch: Callable[[str, int, int], object] = lambda *_: None,
) -> Export:
    """Write a run as a merged checkpoint, an ONNX graph or an int8 one ("merged", "onnx", "onnx-int8"), load it again
    and judge it against the run; or upload its "adapter" unchanged.

    output: a new folder, `exports/<format>` in the run's by default · data: rows to check on in place of the
    validation split, labelled for onnx-int8 · margin: the most accuracy that onnx-int8 may lose, a share of rows, 0.01
    by default · push_to: a Hub repository, user/name, created if missing, private if asked · watch: called with the
    current phase, rows done, and rows in all (0 if it has none). ExportError if the export is not as good as its run,
    or could not be uploaded; ConfigError, DataError, HubError or RunError says what is wrong
    with the input.

        print(submillion.export("reviews", "onnx").folder)
    """
    from submillion import exports

    run = runs.load(run)
    if private and push_to is None:
        raise ConfigError("--private is for --push-to, which names the repository")
    manifest, is_new = None, False
    if format == "adapter":
        _refuse_beside_adapter({"--output": output, "--data": data, "--margin": margin})
        upload = exports.of_adapter(run)
        if push_to is None:
            raise ConfigError(f"--format adapter is for --push-to: the adapter is in {upload.folder} already")
        exports.check(push_to, private)
    else:
        if push_to is not None:
            exports.check(push_to, private)
        written = exports.write(run, format, output, data, margin, watch)
        upload, manifest, is_new = exports.of_export(written), written.manifest, written.is_new
    address = None
    if push_to is not None:
        watch(f"uploading to {push_to}", 0, 0)
        address = exports.push(upload, push_to, private)
    return Export(upload.folder, upload.files, address, is_new, manifest)


def _refuse_beside_adapter(options: dict[str, object]) -> None:
    names = [name for name, value in options.items() if value is not None]
    if names:
        raise ConfigError(f"{', '.join(names)}: --format adapter writes and checks nothing; leave it out")
