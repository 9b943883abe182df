"""Trainings that start from a finished run: the settings of one that continues it, and whether it is there."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from submillion import config
from submillion.config import Config
from submillion.errors import ConfigError, RunError
from submillion.runs.finding import locate, verify
from submillion.runs.folder import Run

_EPOCHS = 2.0  # of a continued training whose run sets neither steps nor epochs: most rows are known by then


def continued(run: Run, rows: os.PathLike[str] | str) -> Config:
    """Return a run's settings, starting from its weights and with a file of rows added to those it was trained on.

    Splits stay unchanged, so the validation rows are the run's. If it sets neither steps nor epochs, the new training
    has two epochs. RunError if its rows or weights cannot be reused.
    """
    verify(run)
    settings = run.config()
    if run.is_of_memory:
        raise RunError(
            f"{run.path} was trained on rows in memory, which are not stored: put old and new rows together, and "
            f"call submillion.train(rows, adapter={{'start_from': {str(run.path)!r}}})"
        )
    if settings.adapter.init in ("pissa", "olora"):
        raise RunError(
            f"{run.path} started with adapter.init {settings.adapter.init}, whose adapter is saved at twice its rank, "
            f"so no training with the same budget can start from it: train anew, with --set data.more={os.fspath(rows)}"
        )
    start: dict[str, Any] = {"adapter.start_from": str(run.path), "adapter.init": "default"}
    if settings.adapter.method == "none":  # the whole encoder was trained
        start = {"model.name": str(run.path / "adapter"), "model.revision": None}
    length = {"train.epochs": _EPOCHS} if settings.train.steps is None and settings.train.epochs is None else {}
    more = dict.fromkeys([*settings.data.more, os.fspath(rows)])
    return config.changed(settings, {**start, **length, "data.more": [*more], "out": str(run.path.parent)})


def refuse_missing_start(settings: Config) -> None:
    """Raise a ConfigError if there is no folder to start from, before anything long begins."""
    source, path = settings.adapter.start_from, None
    if source is None or os.path.isdir(os.path.expanduser(source)):
        return
    with suppress(RunError):  # there is no run of that name either
        path = locate(source, settings.out)
    advice = f"did you mean {path}?" if path else "give the path of a finished run, such as runs/NAME-0a1b2c3d"
    raise ConfigError(
        f"adapter.start_from is {source}: no such folder; {advice} (a run's name or hash alone is not looked up here)"
    )
