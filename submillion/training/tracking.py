"""Records mirrored to TensorBoard, Weights & Biases, MLflow and trackio, through accelerate's trackers.

The run folder stays the source of truth: nothing is read back from a tracker. They write into `<out>/tracking/`, next
to the runs, and work offline unless their own environment variables say otherwise. A tracker that fails is dropped with
one warning, and the run continues.
"""

from __future__ import annotations

import os
import re
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from submillion import config
from submillion.config import Config, Tracker
from submillion.errors import install_line
from submillion.judging.metrics import Score
from submillion.model import processes
from submillion.runs import EvalRecord, Run, StepRecord
from submillion.text import without_secrets
from submillion.training.watching import Phase, Stopwatch

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

IDS = "tracking.json"  # of a run folder: the ids under which trackers know the run
_PROJECT = "submillion"
_LONGEST_REASON = 300
_NOT_IN_A_NAME = r"[^/\w.\- :]"  # MLflow's rule, the narrowest


class Mirror:
    """The open trackers of one run; called with a record, it passes it on. `opened_s`: how long they took to start.

    A resumed run repeats some steps: records already in `metrics.jsonl` are not mirrored twice. A tracker that does not
    know the run yet, or missed a part of it, begins it anew and gets all of them first.
    """

    def __init__(self, run: Run, settings: Config, warn: Callable[[str], object]) -> None:
        self.run, self.settings, self.warn = run, settings, warn
        self.records = run.records() if settings.tracking else []
        self.seen = {record.kind: record.step for record in self.records}
        self.step = max(self.seen.values(), default=0)
        self.ids: dict[str, str] = run.read_json(IDS) if (run.path / IDS).exists() else {}
        self.trackers: dict[Tracker, GeneralTracker] = {}
        self.opened_s = 0.0

    def __call__(self, record: StepRecord | EvalRecord) -> None:
        """Mirror a record, unless an earlier session did."""
        self.step = record.step
        if record.step > self.seen.get(record.kind, 0):
            self._log(values_of(record))

    def log_scores(self, scores: Mapping[str, Mapping[str, Score]]) -> None:
        """Mirror the final scores, split → metric → score, as `final/<split>/<metric>` at the last step."""
        self._log({key: value for split, named in scores.items() for key, value in _scores(f"final/{split}", named)})

    def open(self) -> None:
        """Start every tracker of the settings."""
        for name in self.ids.keys() - {*self.settings.tracking}:
            self._forget(name)
        for name in dict.fromkeys(self.settings.tracking):
            # The trackers of parallel runs share databases, which the first creates.
            with self._guarded(name), _quiet(), FileLock(folder_of(self.run) / ".lock"):
                self._open(name)

    def close(self) -> None:
        """End every tracker that is open."""
        for name, tracker in list(self.trackers.items()):
            with self._guarded(name), _quiet() as heard:
                tracker.finish()
                if name == "trackio":
                    _end_trackio(heard)
        self.trackers.clear()

    def _open(self, name: Tracker) -> None:
        known = self.ids.get(name)
        self.trackers[name], self.ids[name] = start(name, self.run, self.settings.name, known)
        self.run.write_json(IDS, self.ids)
        if known is None:
            self.trackers[name].store_init_configuration(hyperparameters(self.run, self.settings))
            for record in self.records:
                self.trackers[name].log(values_of(record), step=record.step)

    def _log(self, values: dict[str, float]) -> None:
        for name, tracker in list(self.trackers.items()):
            with self._guarded(name):
                tracker.log(values, step=self.step)

    def _forget(self, name: str) -> None:
        if self.ids.pop(name, None) is not None:
            self.run.write_json(IDS, self.ids)

    @contextmanager
    def _guarded(self, name: Tracker) -> Iterator[None]:
        """Drop the tracker if anything goes wrong inside, and forget its id: the next session begins it anew."""
        try:
            yield
        except Exception as error:
            self.trackers.pop(name, None)
            self._forget(name)
            self.warn(f"{name} {_reason(error)}; the run continues without it, metrics.jsonl has every record")


@contextmanager
def mirrored(run: Run, settings: Config, watch: Stopwatch) -> Iterator[Mirror]:
    """Open the settings' trackers for a run that begins or continues, and end them; `watch` gets each failure. Enter
    before `metrics.jsonl` is cut back. Only the main process has trackers."""
    started = time.perf_counter()
    if not processes.is_main():
        settings = settings.model_copy(update={"tracking": ()})
    if settings.tracking:
        watch(Phase("starting trackers", notes=(f"they write into {folder_of(run)}",)))
    # The main process's own run: after an error, too, a tracker is ended, without the other processes.
    mirror = Mirror(Run(run.path), settings, lambda why: watch.watch(Phase("a tracker was dropped", notes=(why,))))
    try:
        mirror.open()
        mirror.opened_s = time.perf_counter() - started
        yield mirror
    finally:
        mirror.close()


def folder_of(run: Run) -> Path:
    """Return the folder that trackers write into, next to the run."""
    return run.path.parent.absolute() / "tracking"


def values_of(record: StepRecord | EvalRecord) -> dict[str, float]:
    """Return a tracker's values of a record: `train/...` for a step, `validation/...` for an evaluation."""
    if record.kind == "step":
        names = ("loss", "learning_rate", "epoch", "tokens", "seconds")
        values = {f"train/{name}": float(getattr(record, name)) for name in names}
    else:
        values = {"validation/loss": record.loss, "validation/evaluation_s": record.evaluation_s}
        values |= _scores("validation", record.scores)
    return {key: value for key, value in values.items() if isfinite(value)}


def hyperparameters(run: Run, settings: Config) -> dict[str, str | int]:
    """Return the settings by their full keys, and the plan's counts."""
    plan = run.read_json("plan.json")
    counts = {f"plan.{key}": plan[key] for key in ("total", "adapter_params", "head_params", "all_params")}
    keys = config.flat(settings.model_dump(mode="json"))
    return {"run": run.name, **{re.sub(_NOT_IN_A_NAME, "_", key): value for key, value in keys.items()}, **counts}


def start(name: Tracker, run: Run, group: str, known: str | None) -> tuple[GeneralTracker, str]:
    """Return a started tracker of the run, and its id for it; `known` is the id of a run to continue.

    ImportError without the library; each library raises its own errors.
    """
    import accelerate

    accelerate.PartialState()  # its trackers log through it
    match name:
        case "tensorboard":
            return _tensorboard(run, known)
        case "wandb":
            return _wandb(run, group, known)
        case "mlflow":
            return _mlflow(run, group, known)
        case "trackio":
            return _trackio(run, group, known)


def _tensorboard(run: Run, known: str | None) -> tuple[GeneralTracker, str]:
    from accelerate.tracking import TensorBoardTracker

    # A removed run that is trained again has its old name: step 0 hides the folder's old records.
    tracker = TensorBoardTracker(run.name, folder_of(run) / "tensorboard", purge_step=None if known else 0)
    tracker.start()
    return tracker, run.name


def _wandb(run: Run, group: str, known: str | None) -> tuple[GeneralTracker, str]:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb
    from accelerate.tracking import WandBTracker

    mode = os.environ.get("WANDB_MODE", "offline")
    run_id = known or f"{run.name}-{secrets.token_hex(3)}"
    # It would also keep the terminal's text, the machine's load and packages, the code.
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
    )
    tracker = WandBTracker(
        os.environ.get("WANDB_PROJECT", _PROJECT),
        dir=folder_of(run),
        mode=mode,
        id=run_id,
        name=run.name,
        group=group,
        resume=None if mode == "offline" else "allow",  # offline, equal ids are joined by `wandb sync`
        settings=settings,
    )
    tracker.start()
    return tracker, run_id


def _mlflow(run: Run, group: str, known: str | None) -> tuple[GeneralTracker, str]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import logging

    import mlflow
    from accelerate.tracking import MLflowTracker

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri, folder = os.environ.get("MLFLOW_TRACKING_URI"), folder_of(run)
    mlflow.set_tracking_uri(uri or f"sqlite:///{folder / 'mlflow.db'}")
    if uri is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it, and the next run would take it for the user's
    artifacts = None if uri else str(folder / "mlflow-artifacts")
    tracker = MLflowTracker(
        _PROJECT, logging_dir=artifacts, run_id=known, run_name=run.name, tags={"group": group, "run": run.name}
    )
    tracker.start()
    return tracker, tracker.tracker.info.run_id


def _trackio(run: Run, group: str, known: str | None) -> tuple[GeneralTracker, str]:
    os.environ.setdefault("TRACKIO_DIR", str(folder_of(run) / "trackio"))  # read once, when it is imported
    from accelerate.tracking import TrackioTracker

    tracker = TrackioTracker(
        _PROJECT,
        name=run.name,
        group=group,
        resume="must" if known else "never",
        embed=False,
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
    tracker.start()
    return tracker, run.name


def _end_trackio(heard: Sequence[warnings.WarningMessage]) -> None:
    """Keep trackio from noisily ending an ended run again at exit. It only warns of what it cannot write."""
    from trackio import context_vars

    context_vars.current_run.set(None)
    lost = [text for text in map(str, (warning.message for warning in heard)) if text.startswith("trackio failed")]
    if lost:
        raise OSError(lost[0])


def _scores(prefix: str, scores: Mapping[str, Score]) -> Iterator[tuple[str, float]]:
    for name, score in scores.items():
        parts = {"": score.value, "_low": score.low, "_high": score.high}
        yield from ((f"{prefix}/{name}{suffix}", value) for suffix, value in parts.items() if isfinite(value))


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"is not installed: {install_line('tracking')}"
    return f"failed ({type(error).__name__}: {' '.join(without_secrets(str(error)).split())[:_LONGEST_REASON]})"


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Hide what libraries print and warn about: stdout is for results, and users need not see their deprecations."""
    with redirect_stdout(StringIO()), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield heard
